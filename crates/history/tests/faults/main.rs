//! What only fail-points can show: who is stopped exactly between two steps, and who dies there.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(clippy::cast_possible_wrap, reason = "tests count to thousands")]

mod hold;
mod outbox;
mod relay;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the other test binary uses the rest")]
mod support;
mod tails;
