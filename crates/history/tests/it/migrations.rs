//! `tidings-history migrate`: concurrent commands, and one that is killed in the middle.

use std::process::{Child, Command, Stdio};
use std::thread;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tidings_devstack::testing::{self, eventually};
use tidings_history::MIGRATOR;

/// Query for the schema: every column of every table.
const SCHEMA: &str = "SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable \
                      FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1";

/// Creates an empty database and returns its URL.
async fn empty() -> String {
    let postgres = testing::shared().await.postgres();
    let name = format!("empty_{}", testing::key_prefix());
    postgres.create_database(&name).await.unwrap();
    postgres.url(&name)
}

/// Starts the migration command.
fn migrate(url: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings-history"));
    command.arg("migrate").env("TIDINGS_POSTGRES_URL", url).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until all commands have exited, and checks that they succeeded.
async fn expect_success(migrating: impl IntoIterator<Item = Child>) {
    let threads: Vec<_> =
        migrating.into_iter().map(|child| thread::spawn(|| child.wait_with_output().unwrap())).collect();
    eventually("all commands have exited", async || threads.iter().all(thread::JoinHandle::is_finished)).await;
    for thread in threads {
        let output = thread.join().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

/// Checks that the database has the complete schema.
async fn expect_complete_schema(url: &str) {
    let clean = testing::database(testing::shared().await, &MIGRATOR, "history").await;
    let (mut here, mut there) =
        (PgConnection::connect(url).await.unwrap(), PgConnection::connect(&clean).await.unwrap());
    let found: Vec<String> = sqlx::query_scalar(SCHEMA).fetch_all(&mut here).await.unwrap();
    let expected: Vec<String> = sqlx::query_scalar(SCHEMA).fetch_all(&mut there).await.unwrap();
    assert_eq!(found, expected);
    assert_eq!(applied(&mut here).await, i64::try_from(MIGRATOR.iter().count()).unwrap());
    let shards: i64 = sqlx::query_scalar("SELECT count(*) FROM relay_shard").fetch_one(&mut here).await.unwrap();
    assert_eq!(shards, 16, "the rows of a migration are inserted once");
}

/// Returns the number of applied migrations.
async fn applied(connection: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations").fetch_one(connection).await.unwrap()
}

/// Returns the number of migration commands that wait for `event`, a `wait_event` of Postgres.
async fn waiting(connection: &mut PgConnection, event: &'static str) -> i64 {
    let query = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
         AND application_name = 'tidings-migrate' AND wait_event = '{event}'"
    );
    sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(connection).await.unwrap()
}

/// All five exit with status 0.
#[tokio::test]
async fn of_five_concurrent_migrations_one_applies_and_four_wait() {
    let url = empty().await;

    expect_success((0..5).map(|_| migrate(&url)).collect::<Vec<_>>()).await;

    expect_complete_schema(&url).await;
}

/// A migration command is killed in the middle of the second migration while four others wait.
#[tokio::test]
async fn a_killed_migration_leaves_nothing_and_the_next_finishes() {
    let url = empty().await;
    let mut watcher = PgConnection::connect(&url).await.unwrap();
    // Blocks the second migration in its middle: its CREATE TABLE waits for this transaction.
    let mut blocker = PgConnection::connect(&url).await.unwrap();
    let mut blocker = blocker.begin().await.unwrap();
    sqlx::raw_sql("CREATE TABLE relay_shard ()").execute(&mut *blocker).await.unwrap();
    let mut first = migrate(&url);
    eventually("the command waits in the second migration", async || waiting(&mut watcher, "transactionid").await == 1)
        .await;
    assert_eq!(applied(&mut watcher).await, 1);
    let mut others: Vec<_> = (0..4).map(|_| migrate(&url)).collect();
    eventually("four commands wait for the migration lock", async || waiting(&mut watcher, "advisory").await == 4)
        .await;

    first.kill().unwrap(); // SIGKILL
    first.wait().unwrap();
    assert!(others.iter_mut().all(|other| other.try_wait().unwrap().is_none()));
    assert_eq!(applied(&mut watcher).await, 1);
    blocker.rollback().await.unwrap();

    expect_success(others).await;
    expect_complete_schema(&url).await;
}
