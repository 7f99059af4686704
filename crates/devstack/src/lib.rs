//! A private Postgres and a private Redis, as child processes on loopback: for tests, demos and a first run.
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
//! However the owner ends, also by `kill -9`, its servers end with it ([`guard.sh`]) and a temporary directory goes.
//! What a killed owner leaves in a kept directory is healed at the next start. A stack holds nothing that belongs to
//! a tokio runtime: tests with a runtime each can share one.
//!
//! [`guard.sh`]: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/sh.html

mod account;
mod binaries;
mod error;
mod guard;
mod place;
mod port;
mod postgres;
mod processes;
mod proxy;
mod reason;
mod redis;
mod server;
pub mod testing;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use binaries::Search;
pub use error::Error;
pub use postgres::Postgres;
pub use proxy::Proxy;
pub use redis::Redis;

use binaries::Binaries;
use place::Place;

/// Where a stack keeps its data and logs.
#[derive(Debug, Clone)]
pub enum Dir {
    /// Made if absent; the data stay for the next start. One owner at a time.
    Kept(PathBuf),
    /// A new directory, removed when the stack ends.
    Temporary,
}

/// What kind of stack to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the data lie.
    pub dir: Dir,
    /// Whether to forget the data of earlier starts.
    pub fresh: bool,
    /// Whether committed rows survive a crash of the machine (`fsync`). They survive a kill of the server anyway.
    pub durable: bool,
    /// Where the servers' programs are looked for.
    pub search: Search,
}

impl Options {
    /// A durable stack whose data stay in `dir`.
    pub fn kept(dir: impl Into<PathBuf>) -> Self {
        Self { dir: Dir::Kept(dir.into()), fresh: false, durable: true, search: Search::default() }
    }

    /// A stack that leaves nothing behind and does not wait for the disk.
    pub fn temporary() -> Self {
        Self { dir: Dir::Temporary, fresh: false, durable: false, search: Search::default() }
    }
}

/// Both servers, running. Dropping it stops them, and blocks for a moment.
#[derive(Debug)]
pub struct Devstack {
    postgres: Postgres,
    redis: Redis,
    place: Arc<Place>,
}

impl Devstack {
    /// Starts both servers on free ports of 127.0.0.1 and returns when they answer.
    ///
    /// # Errors
    ///
    /// Nothing is left running then, and what was made anew of the data is removed or healed by the next start.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let binaries = Binaries::find(&options.search)?;
        let place = Arc::new(Place::take(&options.dir).await?);
        if options.fresh {
            place.forget()?;
        }
        let (postgres, redis) = tokio::try_join!(
            Postgres::launch(Arc::clone(&place), &binaries, options.durable),
            Redis::launch(Arc::clone(&place), &binaries),
        )?;
        Ok(Self { postgres, redis, place })
    }

    /// Returns the Postgres of this stack.
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// Returns the Redis of this stack.
    pub fn redis(&self) -> &Redis {
        &self.redis
    }

    /// Returns the directory of this stack; `postgres.log` and `redis.log` are in it.
    pub fn dir(&self) -> &Path {
        self.place.dir()
    }

    /// Stops both servers and waits, without blocking the runtime, until they have ended and a temporary directory is gone.
    pub async fn stop(self) {
        tokio::join!(self.postgres.stop(), self.redis.stop());
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

impl Drop for Devstack {
    fn drop(&mut self) {
        // Both at once; each handle then waits for its own.
        self.postgres.let_go();
        self.redis.let_go();
    }
}
