//! Races: steps of the service are held at fail-points or fail, and a naive cache loses. Tests run
//! one at a time, because fail-points are global to the process.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod contest;
mod convergence;
mod handles;
mod naive;
mod races;
#[path = "../it/support.rs"]
#[expect(dead_code, reason = "shared with the other test binary; these tests use a part of it")]
mod support;

/// Between the read of Postgres and the fill of the cache.
const BEFORE_FILL: &str = "user::before_fill";
/// Between the commit of a write and its apply.
const BEFORE_APPLY: &str = "user::before_apply";
