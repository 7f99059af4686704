//! Postgres, the truth: pools, limits, migrations and faults, the same for every service.
//!
//! All work goes through [`Postgres::run`] (what callers wait for) or [`Postgres::run_background`] (relays and sweeps,
//! on connections of their own, so that load never starves what repairs): it bounds the wait for a connection and the
//! work itself, closes a connection whose answer did not come, and translates every error into a [`Fault`] in one place.

mod args;
mod bulkhead;
mod fault;
mod lent;
mod migrate;
mod numbers;
mod pool;
mod start;

pub use args::{Args, PostgresUrl};
pub use bulkhead::Bulkhead;
pub use fault::Fault;
pub use migrate::{MigrateError, Migrations};
pub use pool::Postgres;
pub use start::StartError;
