//! From the grant to the end.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

use super::*;
use crate::fake::locks::{Fault, Locks, lease_lost};
use crate::lock::Lost;
use crate::lock::moment::tests::suspend;

#[tokio::test(start_paused = true)]
async fn a_hold_is_renewed_for_as_long_as_its_guard_lives() {
    let locks = Locks::new();
    let caller = caller([&locks.instance("a")]);
    let guard = granted(&caller, options("billing-1")).await;

    for _ in 0..600 {
        sleep(seconds(1)).await;
        assert!(locks.is_held(NAME, guard.token()) && !guard.is_lost());
        assert!(guard.deadline().remaining() > seconds(6), "{:?}", guard.deadline().remaining());
    }
    let renewals = locks.calls("RenewLock");
    assert!((170..=180).contains(&renewals), "{renewals} of one every third of 10 s");
}

#[tokio::test(start_paused = true)]
async fn renewals_that_fail_are_repeated_elsewhere_until_the_deadline() {
    let locks = Locks::new();
    let (a, b) = (locks.instance("a"), locks.instance("b"));
    let caller = caller([&a, &b]);
    let guard = granted(&caller, options("billing-1")).await;

    for _ in 0..20 {
        a.kill();
        sleep(seconds(9)).await;
        a.restart();
        b.kill();
        sleep(seconds(9)).await;
        b.restart();
        assert!(!guard.is_lost());
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_hangs_costs_no_lease() {
    let locks = Locks::new();
    let (a, b) = (locks.instance("a"), locks.instance("b"));
    let caller = caller_with([&a, &b], policy(seconds(60), seconds(60)));
    let guard = granted(&caller, options("billing-1")).await;

    a.freeze();
    sleep(seconds(300)).await;

    assert!(!guard.is_lost());
    assert!(locks.is_held(NAME, guard.token()));
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_costs_no_lease() {
    let locks = Locks::new();
    let a = locks.instance("a");
    let guard = granted(&caller([&a]), options("billing-1")).await;

    for _ in 0..20 {
        a.kill();
        sleep(seconds(5)).await;
        a.restart();
        sleep(seconds(10)).await;
    }

    assert!(!guard.is_lost());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_the_service_lost_is_told_by_the_next_renewal() {
    let locks = Locks::new();
    let guard = granted(&caller([&locks.instance("a")]), options("billing-1")).await;
    let begin = Instant::now();

    locks.forget(NAME);

    assert_eq!(guard.lost().await, Lost::Over);
    assert_eq!(begin.elapsed().as_secs(), 3);
    assert!(guard.is_lost());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_not_renewed_is_lost_at_its_deadline_and_why_is_told() {
    let locks = Locks::new();
    let guard = granted(&caller([&locks.instance("a")]), options("billing-1")).await;
    let begin = Instant::now();
    locks.misbehave(|_, _| Fault::Refuse(Status::internal("a bug")));

    let lost = guard.lost().await;

    assert_eq!(begin.elapsed(), seconds(10));
    assert_eq!(lost.to_string(), "the lease was not renewed in time: INTERNAL: a bug");
}

/// The law of all this: whatever happens to the answers, nobody believes in what the service may have given to another.
#[tokio::test(start_paused = true)]
async fn a_believer_never_believes_past_its_deadline_whatever_the_network_does() {
    let (mut losses, mut renewals) = (0, 0);
    for seed in 0..200 {
        let locks = Locks::new();
        let caller = caller_with([&locks.instance("a"), &locks.instance("b")], policy(seconds(5), seconds(60)));
        let mut chance = StdRng::seed_from_u64(seed);
        let unkind = chance.random_range(0.0..1.0);
        locks.misbehave(move |_, _| {
            let time = Duration::from_millis(chance.random_range(0..8_000));
            match chance.random_range(0..5) {
                _ if chance.random_bool(unkind) => Fault::None,
                0 => Fault::Refuse(Status::unavailable("away")),
                1 => Fault::LoseAnswer,
                2 => Fault::Delay(time),
                3 => Fault::DelayAnswer(time),
                _ => Fault::None,
            }
        });
        let asked = AcquireOptions { ttl: seconds(3), ..options("billing-1") };
        let Ok(Acquired::Granted(guard)) = LockGuard::acquire(&caller, asked).await else { continue };

        let begin = Instant::now();
        while !guard.is_lost() && begin.elapsed() < seconds(60) {
            let (believed, held) = (guard.deadline().remaining(), locks.remaining(NAME, guard.token()));
            assert!(believed <= held, "seed {seed}: {believed:?} of {held:?}");
            sleep(Duration::from_millis(7)).await;
        }
        losses += usize::from(guard.is_lost());
        renewals += locks.calls("RenewLock");
    }
    assert!(losses > 20 && renewals > 1_000, "nothing was tried: {losses} losses, {renewals} renewals");
}

#[tokio::test(start_paused = true)]
async fn guarded_work_is_dropped_when_the_lock_is_lost() {
    let locks = Locks::new();
    let a = locks.instance("a");
    let guard = granted(&caller([&a]), options("billing-1")).await;
    let (begin, alive) = (Instant::now(), Arc::new(()));
    let held = Arc::clone(&alive);
    a.kill();

    let ended = guard
        .guard(async move {
            pending::<()>().await;
            drop(held);
        })
        .await;

    assert!(matches!(ended, Err(Lost::Expired { .. })), "{ended:?}");
    assert_eq!((begin.elapsed(), Arc::strong_count(&alive)), (seconds(10), 1));
}

#[tokio::test(start_paused = true)]
async fn guarded_work_that_ends_in_time_has_its_result() {
    let locks = Locks::new();
    let guard = granted(&caller([&locks.instance("a")]), options("billing-1")).await;

    let work = async {
        sleep(seconds(120)).await;
        42
    };

    assert_eq!(guard.guard(work).await, Ok(42));
}

#[tokio::test(start_paused = true)]
async fn work_that_wakes_up_after_a_suspension_finds_its_lock_lost_and_does_nothing() {
    let locks = Locks::new();
    let guard = granted(&caller([&locks.instance("a")]), options("billing-1")).await;
    let (wake, polled) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (woken, polls) = (Arc::clone(&wake), Arc::clone(&polled));
    let work = tokio::spawn(async move {
        let counted = async {
            let mut woken = Box::pin(woken.notified());
            poll_fn(|context| {
                polls.fetch_add(1, Ordering::Relaxed);
                woken.as_mut().poll(context)
            })
            .await;
        };
        guard.guard(counted).await
    });
    tokio::task::yield_now().await;
    assert_eq!(polled.load(Ordering::Relaxed), 1);

    suspend(seconds(11));
    wake.notify_one(); // before any timer

    assert!(work.await.unwrap().is_err());
    assert_eq!(polled.load(Ordering::Relaxed), 1, "not once more after the deadline");
}

#[tokio::test(start_paused = true)]
async fn after_a_suspension_the_loss_is_noticed_within_a_second_of_being_awake() {
    let locks = Locks::new();
    let guard = granted(&caller([&locks.instance("a")]), options("billing-1")).await;
    let watch = tokio::spawn(async move { guard.lost().await });
    tokio::task::yield_now().await;

    suspend(seconds(11));

    assert!(timeout(Duration::from_millis(1_001), watch).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_is_dropped_releases_its_lock() {
    let locks = Locks::new();
    let a = locks.instance("a");
    let caller = caller([&a]);
    locks.misbehave(|_, count| if count == 1 { Fault::LoseAnswer } else { Fault::None });

    drop(granted(&caller, options("billing-1")).await);
    sleep(seconds(1)).await;

    assert!(!locks.is_held(NAME, 1));
    assert_eq!(granted(&caller, options("billing-2")).await.token(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_release_of_a_dropped_guard_is_given_up_when_the_lease_is_over_anyway() {
    let locks = Locks::new();
    let guard = granted(&caller([&locks.instance("a")]), options("billing-1")).await;
    locks.misbehave(|_, _| Fault::Refuse(Status::unavailable("away")));

    drop(guard);
    sleep(seconds(10)).await;
    let attempts = locks.calls("ReleaseLock");
    sleep(seconds(600)).await;

    assert!(attempts > 2);
    assert_eq!(locks.calls("ReleaseLock"), attempts);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_ran_out_by_our_clock_is_released_all_the_same() {
    let locks = Locks::new();
    let guard = granted(&caller([&locks.instance("a")]), options("billing-1")).await;
    locks.misbehave(|method, _| if method == "RenewLock" { Fault::LoseAnswer } else { Fault::None });
    guard.lost().await;
    assert!(locks.is_held(NAME, guard.token()), "the renewals were done");

    drop(guard);
    sleep(seconds(1)).await;

    assert!(!locks.is_held(NAME, 1));
}

#[tokio::test(start_paused = true)]
async fn release_says_whether_the_lock_was_held_until_then() {
    let locks = Locks::new();
    let caller = caller([&locks.instance("a")]);
    let first = granted(&caller, options("billing-1")).await;
    assert!(first.release().await.unwrap());

    let second = granted(&caller, options("billing-1")).await;
    locks.forget(NAME);

    assert!(!second.release().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_is_left_is_neither_renewed_nor_released() {
    let locks = Locks::new();
    let guard = granted(&caller([&locks.instance("a")]), options("billing-1")).await;

    guard.leave();
    sleep(seconds(9)).await;

    assert!(locks.is_held(NAME, 1));
    assert_eq!((locks.calls("RenewLock"), locks.calls("ReleaseLock")), (0, 0));
    sleep(seconds(1)).await;
    assert!(!locks.is_held(NAME, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_lost_stays_lost() {
    let locks = Locks::new();
    let guard = granted(&caller([&locks.instance("a")]), options("billing-1")).await;
    locks.misbehave(|_, count| if count == 1 { Fault::Refuse(lease_lost()) } else { Fault::None });

    guard.lost().await;
    sleep(seconds(60)).await;

    assert!(guard.is_lost());
    assert_eq!(locks.calls("RenewLock"), 1, "nobody renews what is over");
}
