//! What happens when a step of the service is held or fails: the races that a naive cache loses. One test at a time,
//! because fail-points belong to the process.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod contest;
mod convergence;
mod handles;
mod held;
mod naive;
mod races;
#[path = "../it/support.rs"]
#[expect(dead_code, reason = "written for the other test binary; these tests need a part of it")]
mod support;

/// Between the read of Postgres and the fill of the cache.
const BEFORE_FILL: &str = "user::before_fill";
/// Between the commit of a write and its way to the cache.
const BEFORE_APPLY: &str = "user::before_apply";
