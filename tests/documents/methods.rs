//! `docs/methods.md`: what is promised of each method, for people.

use std::iter;

use tidings_proto::{METHODS, Method, Retry, Work};

use crate::{assert_up_to_date, table};

const INTRODUCTION: &str = "\
# Methods

What each method is besides its messages, which [the contracts](../proto/tidings) describe. The servers enforce it; clients of
other languages get the caps and the repeats from [`deploy/service_config.json`](../deploy/service_config.json). Written from
`crates/proto/src/methods.rs` by `make docs`.

- **cap**: a call takes no longer, whatever deadline its caller gave; past it the answer is DEADLINE_EXCEEDED. A stream has none:
  it ends with its caller, its connection or the process, and is resumed.
- **in flight**: counts among the calls that an instance works on at a time; past that limit calls are refused with
  RESOURCE_EXHAUSTED `OVERLOADED` at once. What is mostly waited for counts elsewhere, and has a limit of its own.
- **scope**: what a token must allow, where tokens are asked for.
- **repeat**: when a call whose answer was lost may be sent again. With a field: if that field is set, and stays the same.

## The service config

A gRPC client that is given `deploy/service_config.json` spreads its calls over all addresses of a name, gives each call the cap as
its time-out, and repeats what is always safe up to three times on UNAVAILABLE, after about 100, 200 and 400 ms: long enough to find
another instance. The budget is that of the Rust client: one repeat for five calls that went well. What is safe only with a field is
not repeated, because a client can not look into the request: repeat it yourself. Calls do not wait until a server can be
reached (`waitForReady`): to hear within a second that there is none is worth more than a call that hangs until its deadline.
";

#[test]
fn docs_methods_md_is_up_to_date() {
    let tables = METHODS.chunk_by(|one, other| one.contract() == other.contract()).map(|methods| {
        let head = ["method", "cap", "in flight", "scope", "repeat"];
        format!("\n## {}\n\n{}", methods[0].contract(), table(head, methods.iter().map(row)))
    });
    let text = iter::once(INTRODUCTION.to_owned()).chain(tables).collect::<String>();

    assert_up_to_date("docs/methods.md", &text);
}

fn row(method: &Method) -> [String; 5] {
    let cap = method.cap().map_or_else(|| "none".to_owned(), |cap| format!("{} s", cap.as_secs_f64()));
    let in_flight = match method.work {
        Work::Brief(_) => "yes",
        Work::Waiting(_) => "no, waits",
        Work::Stream => "no, a stream",
    };
    let repeat = match method.retry {
        Retry::Safe => "always".to_owned(),
        Retry::With(field) => format!("with {}", field.split(" or ").map(code).collect::<Vec<_>>().join(" or ")),
        Retry::Resume => "as a new call, from the last position".to_owned(),
    };
    let scope = format!("{}:{}", method.service(), method.scope.as_str());
    [code(method.short_name()), cap, in_flight.to_owned(), code(&scope), repeat]
}

fn code(text: &str) -> String {
    format!("`{text}`")
}
