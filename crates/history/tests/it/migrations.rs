//! `tidings-history migrate`, by many at once, and killed in the middle.

use std::process::{Child, Command, Stdio};
use std::thread;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tidings_devstack::testing;
use tidings_history::MIGRATOR;

use crate::support::eventually;

/// What the database has become: every column of every table.
const SCHEMA: &str = "SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable \
                      FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1";

/// The URL of a database with nothing in it.
async fn empty() -> String {
    let postgres = testing::shared().await.postgres();
    let name = format!("empty_{}", testing::key_prefix());
    postgres.create_database(&name).await.unwrap();
    postgres.url(&name)
}

/// Starts the command of an operator.
fn migrate(url: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings-history"));
    command.arg("migrate").env("TIDINGS_POSTGRES_URL", url).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until all have ended; each has to end well.
async fn expect_success(migrating: impl IntoIterator<Item = Child>) {
    let threads: Vec<_> =
        migrating.into_iter().map(|child| thread::spawn(|| child.wait_with_output().unwrap())).collect();
    eventually("all have ended", async || threads.iter().all(thread::JoinHandle::is_finished)).await;
    for thread in threads {
        let output = thread.join().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

async fn expect_whole(url: &str) {
    let clean = testing::database(testing::shared().await, &MIGRATOR, "history").await;
    let (mut here, mut there) =
        (PgConnection::connect(url).await.unwrap(), PgConnection::connect(&clean).await.unwrap());
    let found: Vec<String> = sqlx::query_scalar(SCHEMA).fetch_all(&mut here).await.unwrap();
    let expected: Vec<String> = sqlx::query_scalar(SCHEMA).fetch_all(&mut there).await.unwrap();
    assert_eq!(found, expected);
    assert_eq!(applied(&mut here).await, i64::try_from(MIGRATOR.iter().count()).unwrap());
    let shards: i64 = sqlx::query_scalar("SELECT count(*) FROM relay_shard").fetch_one(&mut here).await.unwrap();
    assert_eq!(shards, 16, "data of a migration are there once");
}

/// How many migrations are applied.
async fn applied(connection: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations").fetch_one(connection).await.unwrap()
}

/// How many commands wait for something, by the name that Postgres has for it.
async fn waiting(connection: &mut PgConnection, event: &'static str) -> i64 {
    let query = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
         AND application_name = 'tidings-migrate' AND wait_event = '{event}'"
    );
    sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn of_five_that_migrate_at_once_one_applies_four_wait_and_all_exit_0() {
    let url = empty().await;

    expect_success((0..5).map(|_| migrate(&url)).collect::<Vec<_>>()).await;

    expect_whole(&url).await;
}

#[tokio::test]
async fn one_that_is_killed_half_way_leaves_nothing_and_the_next_finishes_it() {
    let url = empty().await;
    let mut watcher = PgConnection::connect(&url).await.unwrap();
    // Holds the second migration up in its middle: who makes a table of this name has to wait for us.
    let mut obstacle = PgConnection::connect(&url).await.unwrap();
    let mut obstacle = obstacle.begin().await.unwrap();
    sqlx::raw_sql("CREATE TABLE relay_shard ()").execute(&mut *obstacle).await.unwrap();
    let mut first = migrate(&url);
    eventually("it is half way", async || waiting(&mut watcher, "transactionid").await == 1).await;
    assert_eq!(applied(&mut watcher).await, 1);
    let mut others: Vec<_> = (0..4).map(|_| migrate(&url)).collect();
    eventually("four wait for it", async || waiting(&mut watcher, "advisory").await == 4).await;

    first.kill().unwrap(); // SIGKILL
    first.wait().unwrap();
    assert!(others.iter_mut().all(|other| other.try_wait().unwrap().is_none()));
    assert_eq!(applied(&mut watcher).await, 1);
    obstacle.rollback().await.unwrap();

    expect_success(others).await;
    expect_whole(&url).await;
}
