//! Tests with fail-points: calls and relays that are paused or killed exactly between two steps.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(clippy::cast_possible_wrap, reason = "tests count to thousands")]

mod outbox;
mod relay;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the other test binary uses the rest")]
mod support;
mod tails;
