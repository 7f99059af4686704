//! Callers that go away exactly when they are granted something.

use std::time::Duration;

use fail::FailScenario;
use tidings_devstack::testing;
use tokio::time::Instant;

use crate::hold::Hold;
use crate::support::client::{State, lasting, named, once, refusal, waiting};
use crate::support::{Locks, NEVER, PATIENCE, eventually};

/// A lease so long that nobody would wait for its end.
const LONG: Duration = Duration::from_mins(5);

async fn start() -> Locks<'static> {
    Locks::start_on(testing::shared().await, 2, |_, config| config.locks.lock_reread_tick = NEVER.into()).await
}

/// Instances that do nothing without being called.
async fn start_without_upkeep(instances: usize) -> Locks<'static> {
    Locks::start_on(testing::shared().await, instances, |_, config| {
        config.locks.lock_reread_tick = NEVER.into();
        config.locks.lock_sweep_tick = NEVER.into();
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_grant_whose_caller_has_gone_is_released_at_once() {
    let _scenario = FailScenario::setup();
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
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_claim_whose_caller_has_gone_goes_to_the_next() {
    let _scenario = FailScenario::setup();
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
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_repeat_whose_caller_goes_away_ends_no_hold_that_the_first_caller_believes_in() {
    let _scenario = FailScenario::setup();
    let locks = start().await;
    let request = lasting(LONG, named("r", once("a", "ada")));
    let first = locks.acquire(request.clone()).await.unwrap().granted();

    let hold = Hold::first_at("lock::granted");
    let repeat = locks.client(1).acquiring(request);
    hold.holds().await;
    repeat.abort();
    assert!(repeat.await.unwrap_err().is_cancelled());
    locks.client(1).get("a").await.unwrap();
    drop(hold);

    assert_stands(&locks, &first).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_first_call_whose_caller_has_gone_ends_no_hold_that_the_repeat_was_granted() {
    let _scenario = FailScenario::setup();
    let locks = start().await;
    let request = lasting(LONG, named("r", once("a", "ada")));
    let hold = Hold::first_at("lock::granted");
    let first = locks.acquiring(request.clone());
    hold.holds().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    locks.get("a").await.unwrap();

    let repeat = locks.client(1).acquire(request).await.unwrap().granted();
    assert!(repeat.deduplicated);
    drop(hold);

    assert_stands(&locks, &repeat).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_offer_that_is_heard_of_before_its_place_is_noted_is_claimed_all_the_same() {
    let _scenario = FailScenario::setup();
    let locks = start_without_upkeep(2).await;
    let (redis, other) = (locks.redis().await, locks.client(1));
    locks.take("b", "ada").await;
    redis.lose_everything().await;
    assert_eq!(refusal(other.acquire(once("a", "bob")).await).1, "QUARANTINE");
    let early = locks.acquiring(waiting("a", "early"));
    // It has no place; when it has come so far, nobody can see: the quarantine lasts, so that it does not get one.
    tokio::time::sleep(Duration::from_millis(300)).await;
    redis.advance(Duration::from_secs(3)).await;
    let first = other.take("a", "bob").await;

    let hold = Hold::first_at("lock::acquired_again");
    let late = locks.acquiring(waiting("a", "late")); // lets the other go first
    hold.holds().await;
    other.release(&first).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await; // for the news to be heard
    drop(hold);

    let early = early.await.unwrap().unwrap().granted();
    locks.release(&early).await.unwrap();
    assert!(late.await.unwrap().unwrap().granted().token > early.token);
}

/// A hold stands after everything that the instance has to give up was given up.
async fn assert_stands(locks: &Locks<'_>, hold: &crate::support::client::Hold) {
    // What comes later on the same way to Redis finds it.
    for _ in 0..20 {
        assert_eq!(locks.check("a", hold.token).await.unwrap().0, State::Current);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(locks.client(1).acquire(once("a", "bob")).await.unwrap().held().blockers[0].token, hold.token);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_answer_of_an_epoch_that_is_over_is_not_used() {
    let _scenario = FailScenario::setup();
    let locks = start_without_upkeep(1).await;
    let before = locks.take("b", "ada").await;

    let hold = Hold::first_at("lock::acquired");
    let slow = locks.acquiring(once("a", "ada"));
    hold.holds().await;
    locks.redis().await.lose_everything().await;
    assert_eq!(refusal(locks.acquire(once("b", "bob")).await).1, "QUARANTINE");
    drop(hold);

    assert_eq!(refusal(slow.await.unwrap()).1, "QUARANTINE", "it was granted in the epoch of {}", before.token);
}
