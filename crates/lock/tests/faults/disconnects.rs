//! Callers that disconnect at the moment of their grant.

use std::time::Duration;

use fail::FailScenario;
use tidings_devstack::testing::{self, FailPointPause, NEVER, PATIENCE, eventually};
use tokio::time::Instant;

use crate::support::LockFixture;
use crate::support::client::{State, lasting, named, once, refusal, waiting};

/// A lease longer than any test.
const LONG: Duration = Duration::from_mins(5);

async fn start() -> LockFixture<'static> {
    LockFixture::start_on(testing::shared().await, 2, |_, config| config.locks.lock_reread_tick = NEVER.into()).await
}

/// Starts instances without sweeps and rechecks.
async fn start_without_upkeep(instances: usize) -> LockFixture<'static> {
    LockFixture::start_on(testing::shared().await, instances, |_, config| {
        config.locks.lock_reread_tick = NEVER.into();
        config.locks.lock_sweep_tick = NEVER.into();
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_grant_to_a_disconnected_caller_is_released_at_once() {
    let _scenario = FailScenario::setup();
    let locks = start().await;
    let other = locks.client(1);
    for (round, request) in
        [once("a", "cancelled"), waiting("a", "cancelled"), named("r", once("a", "cancelled"))].into_iter().enumerate()
    {
        let pause = FailPointPause::first_at("lock::granted");
        let disconnected = locks.spawn_acquire(lasting(LONG, request));
        pause.reached().await;
        assert_eq!(other.acquire(once("a", "bob")).await.unwrap().held().blockers[0].owner, "cancelled");
        disconnected.abort();
        assert!(disconnected.await.unwrap_err().is_cancelled());
        locks.get("a").await.unwrap(); // on the same connection: the reset of the call was received before
        drop(pause);
        fail::remove("lock::granted");

        eventually("the lock is free", async || other.get("a").await.unwrap().holders.is_empty()).await;
        let next = other.take("a", "bob").await;
        assert!(next.token > i64::try_from(round).unwrap());
        other.release(&next).await.unwrap();
    }
    assert_eq!(locks.redis().await.size("requests").await, 0, "a retry would be a new request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_claim_of_a_disconnected_caller_passes_to_the_next_waiter() {
    let _scenario = FailScenario::setup();
    let locks = start().await;
    let other = locks.client(1);
    let first = other.take("a", "ada").await;
    let disconnected = locks.spawn_acquire(lasting(LONG, waiting("a", "cancelled")));
    locks.wait_for_waiters("a", 1).await;
    let next = other.spawn_acquire(waiting("a", "next"));
    locks.wait_for_waiters("a", 2).await;

    let pause = FailPointPause::first_at("lock::granted");
    other.release(&first).await.unwrap();
    pause.reached().await;
    disconnected.abort();
    assert!(disconnected.await.unwrap_err().is_cancelled());
    locks.get("a").await.unwrap();
    let resumed = Instant::now();
    drop(pause);

    next.await.unwrap().unwrap().granted();
    assert!(resumed.elapsed() < PATIENCE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cancelled_retry_keeps_the_hold_of_the_first_call() {
    let _scenario = FailScenario::setup();
    let locks = start().await;
    let request = lasting(LONG, named("r", once("a", "ada")));
    let first = locks.acquire(request.clone()).await.unwrap().granted();

    let pause = FailPointPause::first_at("lock::granted");
    let retry = locks.client(1).spawn_acquire(request);
    pause.reached().await;
    retry.abort();
    assert!(retry.await.unwrap_err().is_cancelled());
    locks.client(1).get("a").await.unwrap();
    drop(pause);

    assert_still_held(&locks, &first).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cancelled_first_call_keeps_the_hold_of_its_retry() {
    let _scenario = FailScenario::setup();
    let locks = start().await;
    let request = lasting(LONG, named("r", once("a", "ada")));
    let pause = FailPointPause::first_at("lock::granted");
    let first = locks.spawn_acquire(request.clone());
    pause.reached().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    locks.get("a").await.unwrap();

    let retry = locks.client(1).acquire(request).await.unwrap().granted();
    assert!(retry.deduplicated);
    drop(pause);

    assert_still_held(&locks, &retry).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_offer_received_before_the_requeue_reply_is_claimed() {
    let _scenario = FailScenario::setup();
    let locks = start_without_upkeep(2).await;
    let (redis, other) = (locks.redis().await, locks.client(1));
    locks.take("b", "ada").await;
    redis.lose_state().await;
    assert_eq!(refusal(other.acquire(once("a", "bob")).await).1, "QUARANTINE");
    let early = locks.spawn_acquire(waiting("a", "early"));
    // The call gets no queue entry while the quarantine lasts; nothing shows that it has reached
    // Redis.
    tokio::time::sleep(Duration::from_millis(300)).await;
    redis.advance(Duration::from_secs(3)).await;
    let first = other.take("a", "bob").await;

    let pause = FailPointPause::first_at("lock::requeued");
    let late = locks.spawn_acquire(waiting("a", "late")); // requeues the earlier waiter first
    pause.reached().await;
    other.release(&first).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await; // for the notification to arrive
    drop(pause);

    let early = early.await.unwrap().unwrap().granted();
    locks.release(&early).await.unwrap();
    assert!(late.await.unwrap().unwrap().granted().token > early.token);
}

/// Asserts that a hold outlasts every cancel of its instance.
async fn assert_still_held(locks: &LockFixture<'_>, hold: &crate::support::client::HeldLock) {
    // A cancel that is still in flight ends within these checks.
    for _ in 0..20 {
        assert_eq!(locks.check("a", hold.token).await.unwrap().0, State::Current);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(locks.client(1).acquire(once("a", "bob")).await.unwrap().held().blockers[0].token, hold.token);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reply_from_an_ended_epoch_is_discarded() {
    let _scenario = FailScenario::setup();
    let locks = start_without_upkeep(1).await;
    let before = locks.take("b", "ada").await;

    let pause = FailPointPause::first_at("lock::acquired");
    let slow = locks.spawn_acquire(once("a", "ada"));
    pause.reached().await;
    locks.redis().await.lose_state().await;
    assert_eq!(refusal(locks.acquire(once("b", "bob")).await).1, "QUARANTINE");
    drop(pause);

    assert_eq!(refusal(slow.await.unwrap()).1, "QUARANTINE", "granted in the epoch of {}", before.token);
}
