//! Limits that work reaches on a healthy Postgres.

use std::time::{Duration, Instant};

use sqlx::Connection as _;
use tidings_devstack::testing::{self, eventually};
use tidings_postgres::{Args, Bulkhead, Fault, Postgres};

use super::support::{MIGRATIONS, SOON, ask, backend, execute, start};

#[tokio::test]
async fn a_violated_unique_constraint_is_named() {
    let postgres = start(testing::shared().await).await;
    let insert = async |id: i64| {
        postgres
            .run(async |connection| {
                sqlx::query("INSERT INTO note (id, body) VALUES ($1, 'once')").bind(id).execute(connection).await
            })
            .await
    };

    insert(1).await.unwrap();
    let fault = insert(2).await.unwrap_err();

    assert!(matches!(&fault, Fault::Unique(constraint) if constraint == "note_body_once"), "{fault:?}");
    assert!(postgres.answers());
}

#[tokio::test]
async fn a_statement_over_the_limit_is_cancelled_and_retryable() {
    let postgres = start(testing::shared().await).await;
    let before = backend(&postgres).await.unwrap();

    let fault = ask(&postgres, "SELECT 1 FROM pg_sleep(30)").await.unwrap_err();

    assert!(matches!(fault, Fault::Retryable(_)), "{fault:?}");
    assert!(postgres.answers());
    eventually("the connection is used again", async || backend(&postgres).await.unwrap() == before).await;
}

#[tokio::test]
async fn a_wait_for_a_lock_ends_before_the_statement_would() {
    let postgres = start(testing::shared().await).await;
    let (locked, enough) = (tokio::sync::Notify::new(), tokio::sync::Notify::new());
    let holder = postgres.run(async |connection| {
        execute(connection, "BEGIN; LOCK TABLE note").await?;
        locked.notify_one();
        enough.notified().await;
        execute(connection, "COMMIT").await
    });
    let waiter = async {
        locked.notified().await;
        let fault = ask(&postgres, "SELECT count(*)::int FROM note").await.unwrap_err();
        enough.notify_one();
        fault
    };

    let (held, fault) = tokio::join!(holder, waiter);

    held.unwrap();
    assert!(fault_code(&fault).is_some_and(|code| code == "55P03"), "{fault:?}");
}

fn fault_code(fault: &Fault) -> Option<String> {
    let Fault::Retryable(sqlx::Error::Database(refusal)) = fault else { return None };
    refusal.code().map(std::borrow::Cow::into_owned)
}

#[tokio::test]
async fn a_busy_pool_is_exhausted_and_background_work_goes_on() {
    let postgres = start(testing::shared().await).await;
    let slow = "SELECT 1 FROM pg_sleep(0.35)";

    let (one, two, third, background) = tokio::join!(
        ask(&postgres, slow),
        ask(&postgres, slow),
        async {
            tokio::time::sleep(Duration::from_millis(20)).await; // by now both connections are taken
            ask(&postgres, "SELECT 1").await
        },
        postgres.run_background(async |connection| execute(connection, "SELECT 1").await),
    );

    assert_eq!((one.unwrap(), two.unwrap()), (1, 1));
    assert!(matches!(third, Err(Fault::Exhausted)), "{third:?}");
    background.unwrap();
    assert!(postgres.answers(), "busy is not away");
    ask(&postgres, "SELECT 1").await.unwrap();
}

#[tokio::test]
async fn abandoned_work_returns_its_connection_clean() {
    let postgres = start(testing::shared().await).await;
    for _ in 0..4 {
        let work = postgres.run(async |connection| {
            let mut transaction = connection.begin().await?;
            execute(&mut transaction, "INSERT INTO note (id, body) VALUES (1, 'half')").await?;
            execute(&mut transaction, "SELECT pg_sleep(0.2)").await?;
            transaction.commit().await
        });
        let abandoned = tokio::time::timeout(Duration::from_millis(100), work).await;
        assert!(abandoned.is_err());
    }

    let start = Instant::now();
    eventually("no transaction is open", async || {
        let open = "SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle' \
                    AND pid <> pg_backend_pid()";
        ask(&postgres, open).await.is_ok_and(|open| open == 0)
    })
    .await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(ask(&postgres, "SELECT count(*)::int FROM note").await.unwrap(), 0, "nothing is half applied");
}

/// Its locks would be held until the next use of the connection otherwise.
#[tokio::test]
async fn a_dropped_transaction_is_rolled_back_at_once() {
    let postgres = start(testing::shared().await).await;

    let work = postgres.run(async |connection| {
        let mut transaction = connection.begin().await?;
        execute(&mut transaction, "LOCK TABLE note").await?;
        drop(transaction);
        Ok(())
    });
    work.await.unwrap();

    // On another connection: the next use of this one would end the transaction.
    let locks = "SELECT count(*) FROM pg_locks WHERE relation = 'note'::regclass";
    eventually("the table is unlocked", async || {
        let count = postgres.run_background(async |other| sqlx::query_scalar(locks).fetch_one(other).await).await;
        count.is_ok_and(|count: i64| count == 0)
    })
    .await;
}

#[tokio::test]
async fn pools_refuse_work_before_the_database_is_checked() {
    let url = testing::database(testing::shared().await, &MIGRATIONS, "postgres").await;
    let args = Args { postgres_acquire_timeout: SOON.into(), ..Args::new(url.parse().unwrap()) };
    let postgres = Postgres::closed(&args, "tidings-test");

    let refused = ask(&postgres, "SELECT 1").await;
    assert!(matches!(refused, Err(Fault::Away(_))), "{refused:?}");
    assert!(!postgres.answers() && !postgres.ping(SOON).await);

    postgres.open().await.unwrap();
    assert_eq!(ask(&postgres, "SELECT 1").await.unwrap(), 1);
    assert!(postgres.answers() && postgres.ping(SOON).await);
}

#[tokio::test]
async fn a_full_server_is_no_outage_and_its_connections_are_reused() {
    let postgres = start(testing::shared().await).await;
    let before = backend(&postgres).await.unwrap();

    let full = "DO $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$";
    let fault = postgres.run(async |connection| execute(connection, full).await).await.unwrap_err();

    assert!(matches!(fault, Fault::Full(_)), "{fault:?}");
    assert!(postgres.answers() && !fault.is_away());
    eventually("the connection is used again", async || backend(&postgres).await.unwrap() == before).await;
    assert!(postgres.ping(SOON).await, "the disk probe succeeds");
}

#[tokio::test]
async fn a_connection_lost_during_work_leaves_it_ambiguous() {
    let postgres = start(testing::shared().await).await;

    let fault = ask(&postgres, "SELECT 1 FROM pg_terminate_backend(pg_backend_pid())").await.unwrap_err();

    assert!(matches!(fault, Fault::Ambiguous(_)) && fault.is_away(), "{fault:?}");
    eventually("there is another connection", async || ask(&postgres, "SELECT 1").await.is_ok()).await;
}

/// Opens a pool of three connections, and a bulkhead of two of them.
async fn two_of_three() -> (Postgres, Bulkhead) {
    let url = testing::database(testing::shared().await, &MIGRATIONS, "bulkhead").await;
    let mut args = Args::new(url.parse().unwrap());
    args.postgres_connections = 3;
    args.postgres_acquire_timeout = Duration::from_millis(500).into();
    args.postgres_statement_timeout = Duration::from_secs(10).into();
    let postgres = Postgres::connect(&args, "test").await.unwrap();
    let bulkhead = postgres.bulkhead(70);
    (postgres, bulkhead)
}

#[tokio::test]
async fn work_in_a_bulkhead_leaves_connections_to_other_work() {
    let (postgres, bulkhead) = two_of_three().await;
    let enough = tokio::sync::Semaphore::new(0);
    let hold = || {
        bulkhead.run(async |_| {
            let _ = enough.acquire().await;
            Ok(())
        })
    };
    let others = async {
        let fault = bulkhead.run(async |_| Ok(())).await.unwrap_err();
        let answer = ask(&postgres, "SELECT 7").await;
        enough.add_permits(2);
        (fault, answer)
    };

    let (first, second, (fault, answer)) = tokio::join!(hold(), hold(), others);

    assert!(matches!(fault, Fault::Exhausted), "{fault:?}");
    assert_eq!(answer.unwrap(), 7, "other work continues");
    first.unwrap();
    second.unwrap();
    bulkhead.run(async |_| Ok(())).await.unwrap();
}

#[tokio::test]
async fn abandoned_work_keeps_its_permit_while_postgres_executes_it() {
    let (postgres, bulkhead) = two_of_three().await;
    for _ in 0..2 {
        let sent = tokio::sync::Notify::new();
        let work = bulkhead.run(async |connection| {
            sent.notify_one();
            execute(connection, "SELECT pg_sleep(3)").await
        });
        let abandon = async {
            sent.notified().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        tokio::select! {
            done = work => panic!("{done:?}"),
            () = abandon => {}
        }
    }

    let fault = bulkhead.run(async |_| Ok(())).await.unwrap_err();

    assert!(matches!(fault, Fault::Exhausted), "{fault:?}");
    assert_eq!(ask(&postgres, "SELECT 7").await.unwrap(), 7, "other work continues");
    eventually("a permit is released", async || bulkhead.run(async |_| Ok(())).await.is_ok()).await;
}
