//! Helpers for tests: one stack per process, with a database and a key prefix per test.

mod fail_point;
mod redis;
mod sql;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::migrate::Migrator;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

pub use fail_point::FailPointPause;
pub use redis::RedisInspector;
pub use sql::{execute, query_number};

use crate::Devstack;
use crate::options::Options;
use crate::redis::RedisServer;

/// Longest wait for an expected condition: generous, for a debug build on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An interval longer than any test.
pub const NEVER: Duration = Duration::from_hours(1);

/// Pause between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

static SHARED: OnceCell<Devstack> = OnceCell::const_new();

static SHARED_REDIS: OnceCell<RedisServer> = OnceCell::const_new();

static NUMBER: AtomicU64 = AtomicU64::new(1);

/// Returns the temporary stack of this process. The first call starts it.
///
/// It is never dropped; the guards stop it when the process ends.
///
/// # Panics
///
/// If the servers cannot be started.
pub async fn shared() -> &'static Devstack {
    SHARED.get_or_init(own_stack).await
}

/// Starts a temporary stack for one test, which may pause, kill or reconfigure its servers.
///
/// # Panics
///
/// If the servers cannot be started.
pub async fn own_stack() -> Devstack {
    Devstack::start(Options::temporary()).await.unwrap_or_else(|error| panic!("{error}"))
}

/// Returns the Redis that tests without Postgres share. The first call starts it.
///
/// # Panics
///
/// If the server cannot be started.
pub async fn shared_redis() -> &'static RedisServer {
    SHARED_REDIS.get_or_init(own_redis).await
}

/// Starts a temporary Redis for one test that needs no Postgres. The test may pause, kill or
/// reconfigure it.
///
/// # Panics
///
/// If the server cannot be started.
pub async fn own_redis() -> RedisServer {
    RedisServer::start_alone().await.unwrap_or_else(|error| panic!("{error}"))
}

/// Polls until the condition holds.
///
/// # Panics
///
/// If it does not hold within [`PATIENCE`].
pub async fn eventually(condition: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {condition}");
        sleep(POLL_INTERVAL).await;
    }
}

/// Creates a new database with `migrations` applied and returns its URL.
///
/// The migrations run once per stack and `label`; every database is a copy of that template.
///
/// # Panics
///
/// If a statement or a migration fails.
pub async fn database(stack: &Devstack, migrations: &Migrator, label: &str) -> String {
    let postgres = stack.postgres();
    let name = format!("{label}_{}", unique());
    let created = async {
        let template = postgres.template(label, migrations).await?;
        postgres.create_database_from(&template, &name).await
    };
    created.await.unwrap_or_else(|error| panic!("{error}"));
    postgres.url(&name)
}

/// Returns a unique prefix for Redis keys, e.g. `test_4711_3`.
pub fn key_prefix() -> String {
    format!("test_{}", unique())
}

/// Returns a name that is unique on this machine, because processes may share a stack.
fn unique() -> String {
    format!("{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}
