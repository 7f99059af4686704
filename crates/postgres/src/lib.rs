//! Postgres for every service: pools, limits, migrations, faults.
//!
//! All work runs through [`Postgres::run`] (callers wait for it) or [`Postgres::run_background`]
//! (relays and sweeps). Background work has connections of its own, so load never starves repairs.
//! Both bound the wait for a connection and the work itself, close a connection whose response did
//! not arrive in time, and classify every error as a [`Fault`] in one place.
//!
//! | limit | default |
//! |---|---|
//! | wait for a connection | 500 ms, then [`Fault::Exhausted`] |
//! | one statement | 2 s (`statement_timeout`), then [`Fault::Retryable`] |
//! | wait for a lock | half of that, 1 s (`lock_timeout`), then [`Fault::Retryable`] |
//! | the whole work | 3 s: wait + statement + 500 ms, then [`Fault::Ambiguous`] |
//!
//! A connection from before an outage is not used after it. A connection lost during work leaves
//! its outcome in doubt ([`Fault::Ambiguous`]): the caller retries with its idempotency key.
//!
//! `tests/it/example.rs` runs these lines:
//!
//! ```no_run
//! use tidings_postgres::{Args, Fault, Postgres};
//!
//! # async fn example(url: &str) -> Result<(), Box<dyn std::error::Error>> {
//! let args = Args::new(url.parse()?);
//! let postgres = Postgres::connect(&args, "orders").await?;
//!
//! let claim = async |handle: &str| {
//!     let insert = sqlx::query("INSERT INTO handle (name) VALUES ($1)").bind(handle);
//!     postgres.run(async |connection| insert.execute(connection).await).await
//! };
//! claim("ada").await?;
//! let again = claim("ada").await;
//! assert!(matches!(again, Err(Fault::Unique(constraint)) if constraint == "handle_pkey"));
//! # Ok(())
//! # }
//! ```

mod args;
mod bulkhead;
mod fault;
mod metrics;
mod migrate;
mod pool;
mod pooled_connection;
mod start;

pub use args::{Args, PostgresUrl};
pub use bulkhead::Bulkhead;
pub use fault::Fault;
pub use migrate::{MigrateError, Migrations};
pub use pool::Postgres;
pub use start::StartError;
