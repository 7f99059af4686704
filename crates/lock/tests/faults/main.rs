//! Tests with fail-points: calls paused between two steps, and instances that crash there.

#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod disconnects;
mod epochs;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the other test binary uses the rest")]
mod support;
