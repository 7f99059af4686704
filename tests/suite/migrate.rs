//! `tidings migrate`: the schema of one service and of all, on a real Postgres.

use std::process::{Command, Output};

use sqlx::{Connection as _, PgConnection};
use tidings_devstack::testing;

use crate::support::{TIDINGS, stderr};

/// The services that have a database.
const SERVICES: [&str; 3] = ["user", "history", "lock"];

/// Empty databases, one for each service.
struct EmptyDatabases([String; 3]);

impl EmptyDatabases {
    async fn create() -> Self {
        let (postgres, prefix) = (testing::shared().await.postgres(), testing::key_prefix());
        let names = SERVICES.map(|service| format!("migrate_{service}_{prefix}"));
        for name in &names {
            postgres.create_database(name).await.unwrap();
        }
        Self(names.map(|name| postgres.url(&name)))
    }

    /// Runs `tidings migrate all` on these databases, with a file for the URL of the user service.
    fn migrate_all(&self) -> Output {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &self.0[0]).unwrap();
        let mut command = Command::new(TIDINGS);
        command.args(["migrate", "all", "--history-postgres-url", &self.0[1]]);
        command.env("TIDINGS_USER_POSTGRES_URL_FILE", file.path()).env("TIDINGS_LOCK_POSTGRES_URL", &self.0[2]);
        command.output().unwrap()
    }

    /// Returns the number of applied migrations of each service.
    async fn applied(&self) -> Vec<i64> {
        let mut counts = Vec::new();
        for url in &self.0 {
            let mut connection = PgConnection::connect(url).await.unwrap();
            let count = sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations WHERE success");
            counts.push(count.fetch_one(&mut connection).await.unwrap());
        }
        counts
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Also when it is repeated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrate_all_brings_every_schema_up_to_date() {
    let databases = EmptyDatabases::create().await;
    let lines = SERVICES.map(|service| format!("{service:<9} up to date\n")).concat();

    let first = databases.migrate_all();
    let applied = databases.applied().await;
    let second = databases.migrate_all();

    for output in [first, second] {
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stdout(&output), lines);
    }
    assert!(applied.iter().all(|count| *count > 0), "{applied:?}");
    assert_eq!(databases.applied().await, applied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_service_is_migrated_with_the_settings_of_its_binary() {
    let databases = EmptyDatabases::create().await;

    let lock = Command::new(TIDINGS)
        .args(["migrate", "lock", "--postgres-connections", "1"])
        .env("TIDINGS_POSTGRES_URL", &databases.0[2])
        .output()
        .unwrap();

    assert!(lock.status.success(), "{}", stderr(&lock));
    assert_eq!(stdout(&lock), "lock      up to date\n");
    let mut connection = PgConnection::connect(&databases.0[2]).await.unwrap();
    sqlx::query("SELECT FROM lock_epoch").fetch_optional(&mut connection).await.unwrap();
}
