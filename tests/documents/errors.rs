//! `docs/errors.md`: every reason for which a call fails, with its meaning and its cure, from the comments of the contracts.

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

Every answer that is not OK carries, in the details of its status, a `google.rpc.ErrorInfo` and a `google.rpc.RequestInfo`.

- `ErrorInfo.reason` is one of the names below, `ErrorInfo.domain` says whose list it is of. What means the same has the same name
  and the same code everywhere. Programs act on the reason; `ErrorInfo.metadata` has the values that they need.
- `RequestInfo.request_id` is what the log of the service has the call under, and the header `x-request-id`, too. Whoever sends a
  well-formed `x-request-id` with the call finds it here.
- What there is besides goes with the code: `BadRequest` names every malformed field, `RetryInfo` says when to try again,
  `ResourceInfo`, `PreconditionFailure` and `QuotaFailure` say what is absent or taken, in the wrong state, or used up.
- The message is for people and may change. It never holds what a database or a driver said: that is in the log.

What a method promises of its errors, and what of it is safe to repeat, stands at the method in [the contracts](../proto/tidings) and
in [methods](methods.md). An item of a batch fails alone, with the same reasons.

The domain `server.tidings` is that of calls to health, reflection and services that are not known here: what has the same name as
below means the same, and `NOT_FOUND` says that there is no such entry or symbol. Written from the contracts by `make docs`.
";

/// The services in the order of their ports.
const SERVICES: [&str; 4] = ["user", "history", "lock", "broadcast"];

/// A reason as its contract describes it.
struct Described {
    reason: String,
    code: String,
    meaning: String,
    cure: String,
}

/// What the comments of a service's `ErrorReason` say.
fn reasons(service: &str) -> Vec<Described> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let name = format!("tidings/{service}/v1/error_reason.proto");
    let set = protox::compile([&name], [root]).unwrap();
    let file = set.file.into_iter().find(|file| file.name() == name).unwrap();
    let values = file.enum_type[0].value.iter().enumerate().skip(1); // 0 is never sent
    values.map(|(place, value)| described(value.name(), &comment(&file, place))).collect()
}

/// The comment above a value of the only enum of a file, in one line.
fn comment(file: &FileDescriptorProto, value: usize) -> String {
    let path = [5, 0, 2, i32::try_from(value).unwrap()]; // enum_type[0].value[value]
    let mut locations = file.source_code_info.iter().flat_map(|info| &info.location);
    let comment = locations.find(|location| location.path == path).unwrap().leading_comments();
    comment.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `CODE: meaning. Cure.`
fn described(name: &str, comment: &str) -> Described {
    let (code, text) = comment.split_once(": ").unwrap_or_else(|| panic!("{name}: expected `CODE: ...`"));
    let (meaning, cure) =
        text.split_once(". ").unwrap_or_else(|| panic!("{name}: says what it means or what to do, not both"));
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
fn every_contract_has_the_reasons_that_the_server_itself_gives() {
    for service in SERVICES {
        let described: BTreeMap<_, _> = reasons(service).into_iter().map(|it| (it.reason, it.code)).collect();
        // Only what waits or streams has to be told that the instance is about to end: all else is waited for.
        let lasts = |method: &&Method| method.service() == service && !matches!(method.work, Work::Brief(_));
        let lasting = METHODS.iter().any(|method| lasts(&method));
        for reason in Reason::ALL.into_iter().filter(|reason| lasting || *reason != Reason::Draining) {
            assert_eq!(described.get(reason.as_str()), Some(&name(reason.code())), "{service}: {reason:?}");
        }
    }
}

/// A code as contracts write it: `NotFound` is NOT_FOUND.
fn name(code: Code) -> String {
    let words = format!("{code:?}");
    let letters = words.char_indices().flat_map(|(at, letter)| {
        let gap = (at > 0 && letter.is_uppercase()).then_some('_');
        gap.into_iter().chain(letter.to_uppercase())
    });
    letters.collect()
}
