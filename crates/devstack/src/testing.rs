//! What tests share: one pair of servers per process, and in it a database and a key prefix for each test.

use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::migrate::Migrator;
use tokio::sync::OnceCell;

use crate::{Devstack, Options};

static SHARED: OnceCell<Devstack> = OnceCell::const_new();

static NUMBER: AtomicU64 = AtomicU64::new(1);

/// Returns the temporary pair of this process, started by whoever asks first.
///
/// It is never dropped; the guards end it with the process.
///
/// # Panics
///
/// If the servers cannot be started: a test has no other answer to that.
pub async fn shared() -> &'static Devstack {
    let start = async || Devstack::start(Options::temporary()).await.unwrap_or_else(|error| panic!("{error}"));
    SHARED.get_or_init(start).await
}

/// Creates a database with `migrations` applied and returns its URL; no other test has the same.
///
/// The migrations run once per stack and `label`; every database is a copy of the result.
///
/// # Panics
///
/// If Postgres or the migrations refuse.
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

/// Returns a prefix for Redis keys that no other test has, e.g. `test_4711_3`.
pub fn key_prefix() -> String {
    format!("test_{}", unique())
}

/// Unique among the processes of this machine, for stacks that several of them use.
fn unique() -> String {
    format!("{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}
