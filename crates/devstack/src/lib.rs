//! Private Postgres and Redis servers on loopback, for tests, demos and a first run.
//!
//! ```no_run
//! # async fn example() -> Result<(), tidings_devstack::Error> {
//! use tidings_devstack::{Devstack, Options};
//!
//! let stack = Devstack::start(Options::temporary()).await?;
//! stack.postgres().create_database("tidings_user").await?;
//! println!("{} {}", stack.postgres().url("tidings_user"), stack.redis().url());
//! # Ok(())
//! # }
//! ```
//!
//! When the owner ends, also by `kill -9`, its servers end ([`guard.sh`]) and a temporary directory
//! is removed. The next start repairs a kept directory after a kill. A stack is not bound to a
//! tokio runtime, so that tests with different runtimes can share one.
//!
//! [`guard.sh`]: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/sh.html

mod account;
mod binaries;
mod data_dir;
mod error;
mod guard;
mod options;
mod port;
mod postgres;
mod processes;
mod proxy;
mod reason;
mod redis;
mod server;
pub mod testing;

use std::path::Path;
use std::sync::Arc;

pub use binaries::SearchPath;
pub use error::Error;
pub use options::{Dir, Options};
pub use postgres::PostgresServer;
pub use proxy::Proxy;
pub use redis::RedisServer;

use binaries::Binaries;
use data_dir::DataDir;

/// Running Postgres and Redis servers. Dropping it stops them and blocks until they have ended.
#[derive(Debug)]
pub struct Devstack {
    postgres: PostgresServer,
    redis: RedisServer,
    data_dir: Arc<DataDir>,
}

impl Devstack {
    /// Starts both servers on free ports of 127.0.0.1, and waits until they are ready.
    ///
    /// # Errors
    ///
    /// No server is left running then. Incomplete data are removed, now or by the next start.
    /// See [`Error`] for the causes.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let binaries = Binaries::find(&options.search_path)?;
        let data_dir = Arc::new(DataDir::acquire(&options.dir).await?);
        if options.fresh {
            data_dir.clear()?;
        }
        let (postgres, redis) = tokio::try_join!(
            PostgresServer::launch(Arc::clone(&data_dir), &binaries, options.durable),
            RedisServer::launch(Arc::clone(&data_dir), &binaries.redis, &[]),
        )?;
        Ok(Self { postgres, redis, data_dir })
    }

    /// Returns the Postgres of this stack.
    pub fn postgres(&self) -> &PostgresServer {
        &self.postgres
    }

    /// Returns the Redis of this stack.
    pub fn redis(&self) -> &RedisServer {
        &self.redis
    }

    /// Returns the directory of this stack; `postgres.log` and `redis.log` are in it.
    pub fn dir(&self) -> &Path {
        self.data_dir.dir()
    }

    /// Stops both servers without blocking the runtime.
    ///
    /// Returns when they have ended and a temporary directory is removed.
    pub async fn stop(self) {
        tokio::join!(self.postgres.stop(), self.redis.stop());
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

impl Drop for Devstack {
    fn drop(&mut self) {
        // Both stop in parallel; each handle then waits for its own server.
        self.postgres.request_stop();
        self.redis.request_stop();
    }
}
