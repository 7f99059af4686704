//! A Postgres that is killed or stopped.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use tidings_devstack::Devstack;
use tidings_postgres::{Fault, Postgres};
use tokio::time::timeout;

use super::support::{SOON, ask, backend, eventually, execute, own, start, start_with};

/// Background work, as a relay does it four times a second.
async fn look(postgres: &Postgres) -> Result<(), Fault> {
    postgres.run_background(async |connection| execute(connection, "SELECT 1").await).await
}

#[tokio::test]
async fn a_killed_server_is_away_and_used_again_when_it_is_back() {
    let stack = own().await;
    let postgres = start(&stack).await;

    stack.postgres().kill().await;
    let background = look(&postgres).await;
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

#[tokio::test]
async fn a_killed_server_is_away_also_for_who_waits_less_than_for_a_connection() {
    let stack = own().await;
    let postgres = start_with(&stack, SOON).await;
    assert!(postgres.answers());

    stack.postgres().kill().await;

    assert!(!postgres.ping(Duration::from_millis(100)).await);
    assert!(!postgres.answers(), "it was not the connections that were busy");
}

#[tokio::test]
async fn an_outage_that_was_noticed_in_the_background_costs_no_caller_a_fault() {
    let stack = own().await;
    let postgres = start_with(&stack, Duration::from_secs(5)).await;
    let (one, two) = tokio::join!(ask(&postgres, "SELECT 1 FROM pg_sleep(0.1)"), backend(&postgres));
    one.unwrap();
    two.unwrap(); // two connections that will be dead

    let noticed = postgres.run_background(async |connection| {
        execute(connection, "SELECT 1").await?;
        stack.postgres().kill().await;
        execute(connection, "SELECT 1").await
    });
    let noticed = noticed.await;
    assert!(matches!(noticed, Err(Fault::Ambiguous(Some(_)))), "{noticed:?}");
    stack.postgres().start().await.unwrap();

    for _ in 0..4 {
        ask(&postgres, "SELECT 1").await.unwrap();
    }
}

/// Work that Postgres falls silent upon; says whose backend did.
async fn silenced(stack: &Devstack, postgres: &Postgres, backend: &AtomicI32) -> Result<(), Fault> {
    let silenced = postgres.run(async |connection| {
        let pid = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *connection).await?;
        backend.store(pid, Ordering::Relaxed);
        stack.postgres().pause();
        execute(connection, "SELECT 1").await
    });
    silenced.await
}

#[tokio::test]
async fn a_work_that_is_not_answered_is_cut_and_its_connection_closed() {
    let stack = own().await;
    let postgres = start(&stack).await;
    let backend = AtomicI32::new(0);

    let begun = Instant::now();
    let fault = silenced(&stack, &postgres, &backend).await.unwrap_err();
    assert!(matches!(fault, Fault::Ambiguous(None)), "{fault:?}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(!postgres.answers());
    stack.postgres().resume();

    eventually("it is used again", async || ask(&postgres, "SELECT 1").await.is_ok()).await;
    assert!(postgres.answers());
    expect_gone(&postgres, backend.into_inner()).await;
}

#[tokio::test]
async fn a_work_that_is_not_answered_is_cut_also_when_its_caller_has_gone() {
    let stack = own().await;
    let postgres = start(&stack).await;
    let backend = AtomicI32::new(0);

    timeout(Duration::from_millis(100), silenced(&stack, &postgres, &backend)).await.unwrap_err();
    tokio::time::sleep(Duration::from_millis(1500)).await; // the limits of the work pass: 200 + 400 + 500 ms
    stack.postgres().resume();

    eventually("it is used again", async || ask(&postgres, "SELECT 1").await.is_ok()).await;
    expect_gone(&postgres, backend.into_inner()).await;
}

/// Waits until a backend has ended.
async fn expect_gone(postgres: &Postgres, backend: i32) {
    let query = format!("SELECT count(*)::int FROM pg_stat_activity WHERE pid = {backend}");
    eventually("the backend has ended", async || ask(postgres, &query).await.is_ok_and(|count| count == 0)).await;
}

#[tokio::test]
async fn closing_waits_for_work_and_refuses_more() {
    let stack = own().await;
    let postgres = start(&stack).await;

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
