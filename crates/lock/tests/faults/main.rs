//! What only fail-points can show: who is stopped exactly between two steps, and who dies there.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod calls;
mod epochs;
mod hold;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the other test binary uses the rest")]
mod support;
