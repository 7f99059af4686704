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
//! | opening a connection | 5 s, name look-up, TLS and log-in included, in a task of its own |
//! | one statement | 2 s (`statement_timeout`), then [`Fault::Retryable`] |
//! | wait for a lock | half of that, 1 s (`lock_timeout`), then [`Fault::Retryable`] |
//! | the whole work | 3 s: wait + statement + 500 ms, then [`Fault::Ambiguous`] |
//!
//! A connection lost during work leaves its outcome in doubt ([`Fault::Ambiguous`]): the caller
//! retries with its idempotency key. Work that only reads runs through [`Postgres::read`], which
//! repeats it once. After a loss, and after 30 s without use, a connection is checked before use.
//!
//! Every fault of a connection has its [`Cause`]: the words of the server or the network.
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

mod addresses;
mod args;
mod bulkhead;
mod cause;
mod connection_pool;
mod connector;
mod credentials;
mod fault;
mod incarnation;
mod ledger;
mod metrics;
mod migrate;
mod pool;
mod pooled_connection;
mod server_state;
mod session;
mod start;
mod url;

pub use args::{Args, Pooler, PostgresUrl};
pub use bulkhead::Bulkhead;
pub use cause::Cause;
pub use fault::Fault;
pub use ledger::ForeignDatabase;
pub use migrate::{MigrateError, Migrations};
pub use pool::Postgres;
pub use start::StartError;
