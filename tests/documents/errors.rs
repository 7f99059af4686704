//! `docs/errors.md`: every error reason with meaning and cure, from the comments of the contracts.

use std::collections::BTreeMap;
use std::iter;
use std::path::Path;

use prost_types::FileDescriptorProto;
use tidings_proto::{METHODS, Method, Work};
use tidings_server::Reason;
use tonic::Code;

use crate::{assert_up_to_date, table};

const INTRODUCTION: &str = "\
# Errors

Every status other than OK carries a `google.rpc.ErrorInfo` and a `google.rpc.RequestInfo` in its
details.

- `ErrorInfo.reason` is one of the names below; `ErrorInfo.domain` names its list. A reason has the
  same meaning and the same code in every list. Programs act on the reason; `ErrorInfo.metadata`
  holds the values that they need.
- `RequestInfo.request_id` identifies the call in the log of the service. It is also the response
  header `x-request-id`. A caller that sends a well-formed `x-request-id` gets it back.
- Other details depend on the code. `BadRequest` lists every malformed field, `RetryInfo` holds the
  time to wait before a retry. `ResourceInfo`, `PreconditionFailure` and `QuotaFailure` name the
  resource that is absent or taken, in the wrong state, or exhausted.
- The message is for people and may change. It never contains the words of a database or driver;
  those are in the log.

The errors of each method, and the conditions for a safe retry, are in [the
contracts](../proto/tidings) and in [methods](methods.md). An item of a batch fails on its own, with
the same reasons.

The domain `server.tidings` belongs to health, reflection and unknown services. Its reasons have the
meanings below; `NOT_FOUND` means that there is no such entry or symbol. Generated from the
contracts by `make docs`.
";

/// The services in the order of their ports.
const SERVICES: [&str; 4] = ["user", "history", "lock", "broadcast"];

/// An error reason as its contract describes it.
struct Described {
    reason: String,
    code: String,
    meaning: String,
    cure: String,
}

/// Returns the reasons of a service, from the comments of its `ErrorReason`.
fn reasons(service: &str) -> Vec<Described> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let name = format!("tidings/{service}/v1/error_reason.proto");
    let set = protox::compile([&name], [root]).unwrap();
    let file = set.file.into_iter().find(|file| file.name() == name).unwrap();
    let values = file.enum_type[0].value.iter().enumerate().skip(1); // 0 is never sent
    values.map(|(index, value)| described(value.name(), &comment(&file, index))).collect()
}

/// Returns the comment above a value of the only enum of a file, in one line.
fn comment(file: &FileDescriptorProto, value: usize) -> String {
    let path = [5, 0, 2, i32::try_from(value).unwrap()]; // enum_type[0].value[value]
    let mut locations = file.source_code_info.iter().flat_map(|info| &info.location);
    let comment = locations.find(|location| location.path == path).unwrap().leading_comments();
    comment.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Parses `CODE: meaning. Cure.`.
fn described(name: &str, comment: &str) -> Described {
    let (code, text) = comment.split_once(": ").unwrap_or_else(|| panic!("{name}: expected `CODE: ...`"));
    let (meaning, cure) =
        text.split_once(". ").unwrap_or_else(|| panic!("{name}: expected a meaning and a cure, two sentences"));
    let meaning = meaning[..1].to_uppercase() + &meaning[1..] + ".";
    let reason = name.strip_prefix("ERROR_REASON_").unwrap().to_owned();
    Described { reason, code: code.to_owned(), meaning, cure: cure.to_owned() }
}

#[test]
fn docs_errors_md_is_up_to_date() {
    let tables = SERVICES.map(|service| {
        let mut described = reasons(service);
        described.sort_by(|one, other| one.reason.cmp(&other.reason));
        let rows = described.into_iter().map(|it| [format!("`{}`", it.reason), it.code, it.meaning, it.cure]);
        format!("\n## {service}.tidings\n\n{}", table(["reason", "code", "meaning", "what to do"], rows))
    });
    let text: String = iter::once(INTRODUCTION.to_owned()).chain(tables).collect();

    assert_up_to_date("docs/errors.md", &text);
}

#[test]
fn a_reason_has_the_same_code_in_every_contract() {
    let mut codes = BTreeMap::new();
    for service in SERVICES {
        for described in reasons(service) {
            let code = codes.entry(described.reason.clone()).or_insert_with(|| described.code.clone());
            assert_eq!(*code, described.code, "{service}: {}", described.reason);
        }
    }
}

#[test]
fn every_contract_has_the_reasons_of_the_server_crate() {
    for service in SERVICES {
        let described: BTreeMap<_, _> = reasons(service).into_iter().map(|it| (it.reason, it.code)).collect();
        // Only waiting calls and streams end with DRAINING: the server waits for all other calls.
        let lasts = |method: &&Method| method.service() == service && !matches!(method.work, Work::Brief(_));
        let lasting = METHODS.iter().any(|method| lasts(&method));
        for reason in Reason::ALL.into_iter().filter(|reason| lasting || *reason != Reason::Draining) {
            assert_eq!(described.get(reason.as_str()), Some(&name(reason.code())), "{service}: {reason:?}");
        }
    }
}

/// Returns a code as the contracts write it: NOT_FOUND for `NotFound`.
fn name(code: Code) -> String {
    let words = format!("{code:?}");
    let letters = words.char_indices().flat_map(|(at, letter)| {
        let gap = (at > 0 && letter.is_uppercase()).then_some('_');
        gap.into_iter().chain(letter.to_uppercase())
    });
    letters.collect()
}
