//! Instances that open epochs concurrently, slowly, or crash meanwhile: one epoch is left, tokens
//! grow.

use std::time::Duration;

use fail::FailScenario;
use rand::RngExt as _;
use tidings_devstack::testing::{self, FailPointPause, eventually};

use crate::support::client::{once, waiting};
use crate::support::{LockFixture, TTL};

/// Fail-points at every step of opening an epoch.
const STEPS: [&str; 4] = ["lock::epoch_locked", "lock::epoch_seen", "lock::epoch_committed", "lock::epoch_activated"];

async fn start(instances: usize) -> LockFixture<'static> {
    LockFixture::start_on(testing::shared().await, instances, |_, _| {}).await
}

/// Asserts that all instances grant locks in the epoch that Postgres names, with growing tokens.
/// Skips quarantines by advancing the clock.
async fn assert_in_one_epoch(locks: &LockFixture<'_>, instances: usize, last: &mut i64) {
    let redis = locks.redis().await;
    for index in (0..instances).chain(0..instances) {
        eventually("the quarantine ends", async || {
            redis.advance(TTL * 3).await;
            locks.client(index).acquire(once("probe", "probe")).await.is_ok()
        })
        .await;
        let hold = locks.client(index).acquire_with_retries(waiting("a", "ada")).await.granted();
        assert!(hold.token > *last, "{} after {last}", hold.token);
        *last = hold.token;
        locks.client(index).release(&hold).await.unwrap();
    }
    assert_eq!((redis.meta("epoch").await, *last >> 40), (locks.epoch().await, locks.epoch().await));
}

/// They begin in it without a quarantine.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn instances_started_together_share_the_first_epoch() {
    let _scenario = FailScenario::setup();
    fail::cfg("lock::epoch_committed", "sleep(250)").unwrap(); // the second instance starts within this time
    let locks = start(2).await;

    for index in [0, 1] {
        let hold = locks.client(index).take("a", "ada").await;
        assert_eq!(hold.token >> 40, 1);
        locks.client(index).release(&hold).await.unwrap();
    }
}

/// Random delays at every step of opening an epoch.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_slow_epoch_openings_converge_on_one_epoch() {
    let _scenario = FailScenario::setup();
    let locks = start(3).await;
    let redis = locks.redis().await;
    let mut last = 0;
    assert_in_one_epoch(&locks, 3, &mut last).await;

    for _ in 0..15 {
        for step in STEPS {
            let (percent, delay) = (rand::rng().random_range(0..=60), rand::rng().random_range(1..60));
            fail::cfg(step, &format!("{percent}%sleep({delay})")).unwrap();
        }
        for _ in 0..rand::rng().random_range(1..4) {
            redis.lose_state().await;
            let calls = [0, 1, 2].map(|index| locks.client(index).spawn_acquire(once("b", "bob")));
            tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..80))).await;
            drop(calls);
        }
        for step in STEPS {
            fail::remove(step);
        }
        assert_in_one_epoch(&locks, 3, &mut last).await;
    }
}

/// A late activation is refused; one that reaches an empty Redis is not adopted.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_late_activation_never_revives_an_old_epoch() {
    let _scenario = FailScenario::setup();
    let locks = start(2).await;
    let redis = locks.redis().await;
    let mut last = 0;
    assert_in_one_epoch(&locks, 2, &mut last).await;

    for lost_again in [false, true] {
        let opened = locks.epoch().await + 1;
        let pause = FailPointPause::first_at("lock::epoch_committed");
        redis.lose_state().await;
        pause.reached().await;
        // Meanwhile the other instance opens the next epoch and works in it.
        let other = async |index: usize| locks.client(index).acquire(once("b", "bob")).await;
        eventually("another epoch is opened", async || {
            let _ = tokio::join!(other(0), other(1));
            redis.size("meta").await > 0 && redis.meta("epoch").await > opened
        })
        .await;
        let others = locks.epoch().await;
        if lost_again {
            fail::cfg("lock::epoch_locked", "sleep(100)").unwrap(); // the late activation runs first
            redis.lose_state().await;
        }
        drop(pause);
        fail::remove("lock::epoch_committed");
        assert_in_one_epoch(&locks, 2, &mut last).await;
        fail::remove("lock::epoch_locked");
        assert_eq!(locks.epoch().await > others, lost_again, "a late activation ended a live epoch");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn losing_redis_between_any_two_steps_costs_only_an_epoch() {
    let _scenario = FailScenario::setup();
    let locks = start(1).await;
    let redis = locks.redis().await;
    let mut last = 0;
    assert_in_one_epoch(&locks, 1, &mut last).await;

    for step in STEPS {
        let pause = FailPointPause::first_at(step);
        redis.lose_state().await;
        pause.reached().await;
        redis.lose_state().await;
        drop(pause);
        fail::remove(step);
        assert_in_one_epoch(&locks, 1, &mut last).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crash_between_any_two_steps_costs_only_an_epoch() {
    let _scenario = FailScenario::setup();
    let locks = start(2).await;
    let redis = locks.redis().await;
    let mut last = 0;
    assert_in_one_epoch(&locks, 2, &mut last).await;

    for step in STEPS {
        fail::cfg(step, "1*panic->off").unwrap();
        redis.lose_state().await;
        assert_in_one_epoch(&locks, 2, &mut last).await;
        fail::remove(step);
    }
}
