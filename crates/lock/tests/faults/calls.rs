//! Callers that go away exactly when they are granted something.

use std::time::Duration;

use fail::FailScenario;
use tidings_devstack::testing;
use tokio::time::Instant;

use crate::hold::Hold;
use crate::support::client::{lasting, named, once, waiting};
use crate::support::{Locks, NEVER, PATIENCE, eventually};

/// A lease so long that nobody would wait for its end.
const LONG: Duration = Duration::from_mins(5);

async fn start() -> Locks<'static> {
    Locks::start_on(testing::shared().await, 2, |_, config| config.locks.lock_reread_tick = NEVER.into()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_grant_whose_caller_has_gone_is_released_at_once() {
    let scenario = FailScenario::setup();
    let locks = start().await;
    let other = locks.client(1);
    for (round, request) in
        [once("a", "gone"), waiting("a", "gone"), named("r", once("a", "gone"))].into_iter().enumerate()
    {
        let hold = Hold::first_at("lock::granted");
        let gone = locks.acquiring(lasting(LONG, request));
        hold.holds().await;
        assert_eq!(other.acquire(once("a", "bob")).await.unwrap().held().blockers[0].owner, "gone");
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        locks.get("a").await.unwrap(); // on the same connection, so that the end of the call has come
        drop(hold);
        fail::remove("lock::granted");

        eventually("the lock is free", async || other.get("a").await.unwrap().holders.is_empty()).await;
        let next = other.take("a", "bob").await;
        assert!(next.token > i64::try_from(round).unwrap());
        other.release(&next).await.unwrap();
    }
    assert_eq!(locks.redis().await.size("requests").await, 0, "a repeat would be a new request");
    scenario.teardown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_claim_whose_caller_has_gone_goes_to_the_next() {
    let scenario = FailScenario::setup();
    let locks = start().await;
    let other = locks.client(1);
    let first = other.take("a", "ada").await;
    let gone = locks.acquiring(lasting(LONG, waiting("a", "gone")));
    locks.until_waiting("a", 1).await;
    let next = other.acquiring(waiting("a", "next"));
    locks.until_waiting("a", 2).await;

    let hold = Hold::first_at("lock::granted");
    other.release(&first).await.unwrap();
    hold.holds().await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    locks.get("a").await.unwrap();
    let left = Instant::now();
    drop(hold);

    next.await.unwrap().unwrap().granted();
    assert!(left.elapsed() < PATIENCE);
    scenario.teardown();
}
