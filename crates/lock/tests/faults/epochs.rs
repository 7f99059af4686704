//! Instances that open epochs at the same time, slowly, or die while they do: one epoch is left, and tokens grow.

use std::time::Duration;

use fail::FailScenario;
use rand::RngExt as _;
use tidings_devstack::testing;

use crate::hold::Hold;
use crate::support::client::{once, waiting};
use crate::support::{Locks, TTL, eventually};

/// Every step of opening an epoch.
const STEPS: [&str; 4] = ["lock::epoch_locked", "lock::epoch_seen", "lock::epoch_committed", "lock::epoch_activated"];

async fn start(instances: usize) -> Locks<'static> {
    Locks::start_on(testing::shared().await, instances, |_, _| {}).await
}

/// All instances grant locks, in the epoch that Postgres names, and each token is larger than all before. What time a
/// quarantine takes is skipped.
async fn assert_in_one_epoch(locks: &Locks<'_>, instances: usize, last: &mut i64) {
    let redis = locks.redis().await;
    for place in (0..instances).chain(0..instances) {
        eventually("there is no quarantine", async || {
            redis.advance(TTL * 3).await;
            locks.client(place).acquire(once("probe", "probe")).await.is_ok()
        })
        .await;
        let hold = locks.client(place).insist(waiting("a", "ada")).await.granted();
        assert!(hold.token > *last, "{} after {last}", hold.token);
        *last = hold.token;
        locks.client(place).release(&hold).await.unwrap();
    }
    assert_eq!((redis.meta("epoch").await, *last >> 40), (locks.epoch().await, locks.epoch().await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn instances_that_start_together_begin_in_the_first_epoch_without_a_quarantine() {
    let _scenario = FailScenario::setup();
    fail::cfg("lock::epoch_committed", "sleep(250)").unwrap(); // so that the second comes before the first is done
    let locks = start(2).await;

    for place in [0, 1] {
        let hold = locks.client(place).take("a", "ada").await;
        assert_eq!(hold.token >> 40, 1);
        locks.client(place).release(&hold).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn instances_that_open_epochs_at_once_with_delays_at_every_step_end_up_in_one() {
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
            redis.lose_everything().await;
            let calls = [0, 1, 2].map(|place| locks.client(place).acquiring(once("b", "bob")));
            tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..80))).await;
            drop(calls);
        }
        for step in STEPS {
            fail::remove(step);
        }
        assert_in_one_epoch(&locks, 3, &mut last).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_activation_that_comes_late_is_refused_and_one_that_comes_to_an_empty_redis_is_not_worked_in() {
    let _scenario = FailScenario::setup();
    let locks = start(2).await;
    let redis = locks.redis().await;
    let mut last = 0;
    assert_in_one_epoch(&locks, 2, &mut last).await;

    for lost_again in [false, true] {
        let opened = locks.epoch().await + 1;
        let hold = Hold::first_at("lock::epoch_committed");
        redis.lose_everything().await;
        hold.holds().await;
        // The other opens the next epoch meanwhile, and works in it.
        let other = async |place: usize| locks.client(place).acquire(once("b", "bob")).await;
        eventually("another epoch is opened", async || {
            let _ = tokio::join!(other(0), other(1));
            redis.size("meta").await > 0 && redis.meta("epoch").await > opened
        })
        .await;
        let others = locks.epoch().await;
        if lost_again {
            fail::cfg("lock::epoch_locked", "sleep(100)").unwrap(); // so that the late one comes first
            redis.lose_everything().await;
        }
        drop(hold);
        fail::remove("lock::epoch_committed");
        assert_in_one_epoch(&locks, 2, &mut last).await;
        fail::remove("lock::epoch_locked");
        assert_eq!(locks.epoch().await > others, lost_again, "the late one ends no epoch that goes on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_lost_between_any_two_steps_costs_an_epoch_and_nothing_else() {
    let _scenario = FailScenario::setup();
    let locks = start(1).await;
    let redis = locks.redis().await;
    let mut last = 0;
    assert_in_one_epoch(&locks, 1, &mut last).await;

    for step in STEPS {
        let hold = Hold::first_at(step);
        redis.lose_everything().await;
        hold.holds().await;
        redis.lose_everything().await;
        drop(hold);
        fail::remove(step);
        assert_in_one_epoch(&locks, 1, &mut last).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_dies_between_any_two_steps_costs_an_epoch_and_nothing_else() {
    let _scenario = FailScenario::setup();
    let locks = start(2).await;
    let redis = locks.redis().await;
    let mut last = 0;
    assert_in_one_epoch(&locks, 2, &mut last).await;

    for step in STEPS {
        fail::cfg(step, "1*panic->off").unwrap();
        redis.lose_everything().await;
        assert_in_one_epoch(&locks, 2, &mut last).await;
        fail::remove(step);
    }
}
