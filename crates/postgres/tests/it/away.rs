//! A killed or paused Postgres.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use tidings_devstack::Devstack;
use tidings_devstack::testing::{self, eventually, own_stack};
use tidings_postgres::{Fault, Postgres};
use tokio::time::timeout;

use super::support::{SOON, ask, backend, execute, start, start_with};

/// Runs background work, like a relay four times a second.
async fn poll(postgres: &Postgres) -> Result<(), Fault> {
    postgres.run_background(async |connection| execute(connection, "SELECT 1").await).await
}

#[tokio::test]
async fn a_killed_server_is_away_and_used_again_after_its_restart() {
    let stack = own_stack().await;
    let postgres = start(&stack).await;

    stack.postgres().kill().await;
    let background = poll(&postgres).await;
    assert!(matches!(background, Err(Fault::Away(_))), "{background:?}");
    assert!(!postgres.answers());
    for _ in 0..3 {
        let fault = ask(&postgres, "SELECT 1").await.unwrap_err();
        assert!(matches!(fault, Fault::Away(_)), "{fault:?}");
    }
    stack.postgres().start().await.unwrap();

    eventually("it is used again", async || ask(&postgres, "SELECT 1").await.is_ok()).await;
    assert!(postgres.answers());
}

/// The probe waits for less than the acquire timeout.
#[tokio::test]
async fn a_short_probe_of_a_killed_server_finds_it_away() {
    let stack = own_stack().await;
    let postgres = start_with(&stack, SOON).await;
    assert!(postgres.answers());

    stack.postgres().kill().await;

    assert!(!postgres.ping(Duration::from_millis(100)).await);
    assert!(!postgres.answers(), "the connections were not busy");
}

#[tokio::test]
async fn an_outage_seen_in_the_background_costs_no_caller_a_fault() {
    let stack = own_stack().await;
    let postgres = start_with(&stack, Duration::from_secs(5)).await;
    let (one, two) = tokio::join!(ask(&postgres, "SELECT 1 FROM pg_sleep(0.1)"), backend(&postgres));
    one.unwrap();
    two.unwrap(); // opens the two connections that will be dead

    let noticed = postgres.run_background(async |connection| {
        execute(connection, "SELECT 1").await?;
        stack.postgres().kill().await;
        execute(connection, "SELECT 1").await
    });
    let noticed = noticed.await;
    assert!(matches!(noticed, Err(Fault::Ambiguous(_))), "{noticed:?}");
    stack.postgres().start().await.unwrap();

    for _ in 0..4 {
        ask(&postgres, "SELECT 1").await.unwrap();
    }
}

/// Runs work during which Postgres is paused; stores the process id of its backend.
async fn interrupted(stack: &Devstack, postgres: &Postgres, backend: &AtomicI32) -> Result<(), Fault> {
    let interrupted = postgres.run(async |connection| {
        let pid = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *connection).await?;
        backend.store(pid, Ordering::Relaxed);
        stack.postgres().pause();
        execute(connection, "SELECT 1").await
    });
    interrupted.await
}

#[tokio::test]
async fn unanswered_work_is_cut_and_its_connection_closed() {
    let stack = own_stack().await;
    let postgres = start(&stack).await;
    let backend = AtomicI32::new(0);

    let start = Instant::now();
    let fault = interrupted(&stack, &postgres, &backend).await.unwrap_err();
    assert!(matches!(&fault, Fault::Ambiguous(cause) if cause.is_timeout()), "{fault:?}");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(!postgres.answers());
    stack.postgres().resume();

    eventually("it is used again", async || ask(&postgres, "SELECT 1").await.is_ok()).await;
    assert!(postgres.answers());
    expect_ended(&postgres, backend.into_inner()).await;
}

#[tokio::test]
async fn unanswered_work_is_cut_after_its_caller_dropped_it() {
    let stack = own_stack().await;
    let postgres = start(&stack).await;
    let backend = AtomicI32::new(0);

    timeout(Duration::from_millis(100), interrupted(&stack, &postgres, &backend)).await.unwrap_err();
    tokio::time::sleep(Duration::from_millis(1500)).await; // longer than the limits of the work: 200 + 400 + 500 ms
    stack.postgres().resume();

    eventually("it is used again", async || ask(&postgres, "SELECT 1").await.is_ok()).await;
    expect_ended(&postgres, backend.into_inner()).await;
}

/// Waits until a backend has ended.
async fn expect_ended(postgres: &Postgres, backend: i32) {
    let query = format!("SELECT count(*)::int FROM pg_stat_activity WHERE pid = {backend}");
    eventually("the backend has ended", async || ask(postgres, &query).await.is_ok_and(|count| count == 0)).await;
}

#[tokio::test]
async fn closing_waits_for_work_and_refuses_more() {
    let postgres = start(testing::shared().await).await;

    let work = ask(&postgres, "SELECT 1 FROM pg_sleep(0.2)");
    let closing = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        timeout(SOON, postgres.close()).await.unwrap();
    };
    let (answer, ()) = tokio::join!(work, closing);

    assert_eq!(answer.unwrap(), 1);
    let fault = ask(&postgres, "SELECT 1").await.unwrap_err();
    assert!(matches!(fault, Fault::Away(_)), "{fault:?}");
}
