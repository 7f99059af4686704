//! `docs/methods.md`: limits, scopes and retries of each method.

use std::iter;

use tidings_proto::{METHODS, Method, Retry, Work};

use crate::{assert_up_to_date, table};

const INTRODUCTION: &str = "\
# Methods

Limits, scopes and retry rules of each method. [The contracts](../proto/tidings) describe the
messages. The servers enforce the limits; clients of other languages get limits and retries from
[`deploy/service_config.json`](../deploy/service_config.json). Generated from
`crates/proto/src/methods.rs` by `make docs`.

- **cap**: longest duration of a call, even if its caller's deadline is later; afterwards the call
  fails with DEADLINE_EXCEEDED. A stream has no cap: it ends with its caller, its connection or the
  process, and can be resumed.
- **in flight**: `yes` if the call counts towards the limit of calls in flight of an instance. Above
  that limit calls fail immediately with RESOURCE_EXHAUSTED `OVERLOADED`. Waiting calls and streams
  have limits of their own.
- **scope**: the scope that a token must have, if the server requires tokens.
- **retry**: the condition under which a call without a response may be sent again. With a field: if
  that field is set, and unchanged in the retry.

## The service config

A gRPC client that loads `deploy/service_config.json` balances its calls over all addresses of a
name and uses the cap as timeout. It retries calls that are always safe to retry up to three times
on UNAVAILABLE, after about 100, 200 and 400 ms: long enough to find another instance. The retry
budget is that of the Rust client: one retry per five successful calls. Calls that are safe only
with a field are not retried, because a client cannot inspect the request; retry them in your code.
Calls fail fast instead of waiting for a reachable server (`waitForReady`): an error within a second
is worth more than a call that hangs until its deadline.
";

#[test]
fn docs_methods_md_is_up_to_date() {
    let tables = METHODS.chunk_by(|one, other| one.contract() == other.contract()).map(|methods| {
        let head = ["method", "cap", "in flight", "scope", "retry"];
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
    let retry = match method.retry {
        Retry::Safe => "always".to_owned(),
        Retry::With(field) => format!("with {}", field.split(" or ").map(code).collect::<Vec<_>>().join(" or ")),
        Retry::Resume => "as a new call, from the last position".to_owned(),
    };
    let scope = format!("{}:{}", method.service(), method.scope.as_str());
    [code(method.short_name()), cap, in_flight.to_owned(), code(&scope), retry]
}

fn code(text: &str) -> String {
    format!("`{text}`")
}
