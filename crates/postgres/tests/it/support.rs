//! Databases and pools for the tests.

use std::time::{Duration, Instant};

use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, PgConnection};
use tidings_devstack::{Devstack, testing};
use tidings_postgres::{Args, Fault, Postgres};

pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!("tests/migrations");

/// Longest wait for an expected event.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Opens pools with short limits on a database of the test's own.
pub(crate) async fn start(stack: &Devstack) -> Postgres {
    start_with(stack, Duration::from_millis(200)).await
}

/// Like [`start`], with another acquire timeout: a new connection takes long on a busy machine.
pub(crate) async fn start_with(stack: &Devstack, acquire: Duration) -> Postgres {
    let url = testing::database(stack, &MIGRATIONS, "postgres").await;
    let args = Args {
        postgres_connections: 2,
        postgres_acquire_timeout: acquire.into(),
        postgres_statement_timeout: Duration::from_millis(400).into(),
        ..Args::new(url.parse().unwrap())
    };
    // The first connection to a database takes longer than others.
    let start = Instant::now();
    loop {
        match Postgres::connect(&args, "tidings-test").await {
            Ok(postgres) => return postgres,
            Err(error) => assert!(start.elapsed() < SOON, "{error}"),
        }
    }
}

/// Queries one number.
pub(crate) async fn ask(postgres: &Postgres, query: &str) -> Result<i32, Fault> {
    let query = AssertSqlSafe(query.to_owned());
    postgres.run(async |connection| sqlx::query_scalar(query).fetch_one(connection).await).await
}

/// Returns the process id of the backend that serves the next work.
pub(crate) async fn backend(postgres: &Postgres) -> Result<i32, Fault> {
    ask(postgres, "SELECT pg_backend_pid()").await
}

pub(crate) async fn execute(connection: &mut PgConnection, statement: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(statement).execute(connection).await.map(drop)
}
