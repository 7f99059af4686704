//! Fewer connections than the pool may have, and single connections that end.

use std::collections::HashSet;

use tidings_devstack::testing::{self, eventually};
use tidings_postgres::{Args, Fault, Postgres};
use tokio::sync::Notify;

use super::support::{MIGRATIONS, SOON, ask, backend};

/// Opens a pool of six connections, for which Postgres gives at most `limit`.
async fn limited(limit: u32) -> Postgres {
    let stack = testing::shared().await;
    let url = testing::database(stack, &MIGRATIONS, "postgres").await;
    let (_, database) = url.rsplit_once('/').unwrap();
    let role = format!("limited_{database}");
    testing::execute(&url, &format!("CREATE ROLE \"{role}\" LOGIN CONNECTION LIMIT {limit}")).await;
    let args = Args {
        postgres_connections: 6,
        postgres_acquire_timeout: SOON.into(),
        ..Args::new(url.replace("tidings@", &format!("{role}@")).parse().unwrap())
    };
    Postgres::connect(&args, "tidings-test").await.unwrap()
}

#[tokio::test]
async fn callers_share_the_connections_that_postgres_gives() {
    let postgres = limited(2).await;
    let calls = (0..60).map(|_| {
        let postgres = postgres.clone();
        tokio::spawn(async move { ask(&postgres, "SELECT pg_backend_pid() FROM pg_sleep(0.01)").await })
    });

    let mut backends = HashSet::new();
    for call in calls.collect::<Vec<_>>() {
        backends.insert(call.await.unwrap().unwrap());
    }

    assert!(backends.len() <= 2, "{backends:?}");
    assert!(postgres.answers());
}

/// Opens two connections; returns their backends, the last used one first.
async fn two_backends(postgres: &Postgres) -> (i32, i32) {
    let (taken, enough) = (Notify::new(), Notify::new());
    let first = postgres.run(async |connection| {
        let pid = sqlx::query_scalar::<_, i32>("SELECT pg_backend_pid()").fetch_one(connection).await;
        taken.notify_one();
        enough.notified().await;
        pid
    });
    let second = async {
        taken.notified().await;
        let pid = backend(postgres).await.unwrap();
        enough.notify_one();
        pid
    };
    let (first, second) = tokio::join!(first, second);
    let first = first.unwrap();
    assert_ne!(first, second);
    assert_eq!(backend(postgres).await.unwrap(), first, "the last used connection is used next");
    (first, second)
}

/// Ends a backend and waits until it has ended.
async fn end(pid: i32) {
    let url = testing::shared().await.postgres().maintenance_url();
    testing::execute(&url, &format!("SELECT pg_terminate_backend({pid})")).await;
    let left = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    eventually("the backend has ended", async || testing::query_number(&url, &left).await == 0).await;
}

async fn ask_again(postgres: &Postgres) -> Result<i32, Fault> {
    postgres.read(async |connection| sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(connection).await).await
}

#[tokio::test]
async fn one_ended_backend_is_no_outage() {
    let postgres = limited(6).await;
    let (first, second) = two_backends(&postgres).await;

    end(first).await;
    let fault = ask(&postgres, "SELECT 1").await.unwrap_err();

    assert!(matches!(fault, Fault::Ambiguous(_)), "{fault:?}");
    assert!(postgres.answers(), "Postgres is available");
    assert_eq!(backend(&postgres).await.unwrap(), second, "the other connection is used further");
}

#[tokio::test]
async fn a_read_on_an_ended_connection_is_repeated() {
    let postgres = limited(6).await;
    let (first, second) = two_backends(&postgres).await;
    end(first).await;
    end(second).await;

    let fresh = ask_again(&postgres).await.unwrap();

    assert!(fresh != first && fresh != second);
}

#[tokio::test]
async fn a_read_without_a_response_leaves_nothing_in_doubt() {
    let postgres = limited(6).await;
    let end_itself = "SELECT pg_terminate_backend(pg_backend_pid())";

    let read = postgres.read(async |connection| sqlx::query(end_itself).execute(connection).await).await;
    let bulkhead = postgres.bulkhead(50);
    let read_in_bulkhead = bulkhead.read(async |connection| sqlx::query(end_itself).execute(connection).await).await;

    for fault in [read.unwrap_err(), read_in_bulkhead.unwrap_err()] {
        assert!(matches!(fault, Fault::Away(_)), "{fault:?}");
    }
}
