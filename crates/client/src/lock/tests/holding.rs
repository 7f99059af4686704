//! Holding: renewal, loss, suspension and release.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

use super::*;
use crate::fake::locks::{CallFault, FakeLocks, lease_lost};
use crate::lock::Lost;
use crate::lock::boot_instant::tests::suspend;

#[tokio::test(start_paused = true)]
async fn a_hold_is_renewed_for_as_long_as_its_guard_lives() {
    let locks = FakeLocks::new();
    let caller = caller([&locks.instance("a")]);
    let guard = granted(&caller, options("billing-1")).await;

    for _ in 0..600 {
        sleep(seconds(1)).await;
        assert!(locks.is_held(NAME, guard.token()) && !guard.is_lost());
        assert!(guard.deadline().remaining() > seconds(6), "{:?}", guard.deadline().remaining());
    }
    let renewals = locks.calls("RenewLock");
    assert!((170..=180).contains(&renewals), "{renewals} renewals, expected one every third of 10 s");
}

/// Retries continue until the deadline, so an outage of one instance costs no lease.
#[tokio::test(start_paused = true)]
async fn failed_renewals_are_retried_elsewhere() {
    let locks = FakeLocks::new();
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
async fn a_hanging_instance_costs_no_lease() {
    let locks = FakeLocks::new();
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
    let locks = FakeLocks::new();
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
async fn the_next_renewal_reports_a_lease_lost_by_the_service() {
    let locks = FakeLocks::new();
    let guard = granted(&caller([&locks.instance("a")]), options("billing-1")).await;
    let begin = Instant::now();

    locks.drop_hold(NAME);

    assert_eq!(guard.lost().await, Lost::Ended);
    assert_eq!(begin.elapsed().as_secs(), 3);
    assert!(guard.is_lost());
}

/// The loss carries the last failure of a renewal as its cause.
#[tokio::test(start_paused = true)]
async fn an_unrenewed_lease_expires_at_its_deadline() {
    let locks = FakeLocks::new();
    let guard = granted(&caller([&locks.instance("a")]), options("billing-1")).await;
    let begin = Instant::now();
    locks.inject_faults(|_, _| CallFault::Refuse(Status::internal("a bug")));

    let lost = guard.lost().await;

    assert_eq!(begin.elapsed(), seconds(10));
    assert_eq!(lost.to_string(), "the lease was not renewed in time: INTERNAL: a bug");
}

/// The main invariant: under any faults, the guard counts as lost before the service may grant the
/// lock to another owner.
#[tokio::test(start_paused = true)]
async fn a_guard_never_outlives_the_lease_at_the_service() {
    let (mut losses, mut renewals) = (0, 0);
    for seed in 0..200 {
        let locks = FakeLocks::new();
        let caller = caller_with([&locks.instance("a"), &locks.instance("b")], policy(seconds(5), seconds(60)));
        let mut chance = StdRng::seed_from_u64(seed);
        let fault_free = chance.random_range(0.0..1.0);
        locks.inject_faults(move |_, _| {
            let time = Duration::from_millis(chance.random_range(0..8_000));
            match chance.random_range(0..5) {
                _ if chance.random_bool(fault_free) => CallFault::None,
                0 => CallFault::Refuse(Status::unavailable("down")),
                1 => CallFault::LoseResponse,
                2 => CallFault::Delay(time),
                3 => CallFault::DelayResponse(time),
                _ => CallFault::None,
            }
        });
        let options = AcquireOptions { ttl: seconds(3), ..options("billing-1") };
        let Ok(Acquisition::Granted(guard)) = LockGuard::acquire(&caller, options).await else { continue };

        let begin = Instant::now();
        while !guard.is_lost() && begin.elapsed() < seconds(60) {
            let (claimed, held) = (guard.deadline().remaining(), locks.remaining(NAME, guard.token()));
            assert!(claimed <= held, "seed {seed}: the guard claims {claimed:?}, the service {held:?}");
            sleep(Duration::from_millis(7)).await;
        }
        losses += usize::from(guard.is_lost());
        renewals += locks.calls("RenewLock");
    }
    assert!(losses > 20 && renewals > 1_000, "too few faults: {losses} losses, {renewals} renewals");
}

#[tokio::test(start_paused = true)]
async fn guarded_work_is_dropped_when_the_lock_is_lost() {
    let locks = FakeLocks::new();
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
async fn guarded_work_that_ends_in_time_returns_its_result() {
    let locks = FakeLocks::new();
    let guard = granted(&caller([&locks.instance("a")]), options("billing-1")).await;

    let work = async {
        sleep(seconds(120)).await;
        42
    };

    assert_eq!(guard.guard(work).await, Ok(42));
}

/// Work that is woken after a suspension must find the loss before it does anything.
#[tokio::test(start_paused = true)]
async fn guarded_work_is_not_polled_after_the_deadline() {
    let locks = FakeLocks::new();
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
async fn a_loss_is_noticed_within_a_second_of_a_resume() {
    let locks = FakeLocks::new();
    let guard = granted(&caller([&locks.instance("a")]), options("billing-1")).await;
    let watch = tokio::spawn(async move { guard.lost().await });
    tokio::task::yield_now().await;

    suspend(seconds(11));

    assert!(timeout(Duration::from_millis(1_001), watch).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_guard_releases_its_lock() {
    let locks = FakeLocks::new();
    let a = locks.instance("a");
    let caller = caller([&a]);
    locks.inject_faults(|_, count| if count == 1 { CallFault::LoseResponse } else { CallFault::None });

    drop(granted(&caller, options("billing-1")).await);
    sleep(seconds(1)).await;

    assert!(!locks.is_held(NAME, 1));
    assert_eq!(granted(&caller, options("billing-2")).await.token(), 2);
}

/// After that, the lease has expired at the service anyway.
#[tokio::test(start_paused = true)]
async fn a_background_release_is_not_retried_past_the_lease() {
    let locks = FakeLocks::new();
    let guard = granted(&caller([&locks.instance("a")]), options("billing-1")).await;
    locks.inject_faults(|_, _| CallFault::Refuse(Status::unavailable("down")));

    drop(guard);
    sleep(seconds(10)).await;
    let attempts = locks.calls("ReleaseLock");
    sleep(seconds(600)).await;

    assert!(attempts > 2);
    assert_eq!(locks.calls("ReleaseLock"), attempts);
}

/// Renewals whose responses were lost may have extended the lease at the service.
#[tokio::test(start_paused = true)]
async fn an_expired_lease_is_still_released() {
    let locks = FakeLocks::new();
    let guard = granted(&caller([&locks.instance("a")]), options("billing-1")).await;
    locks.inject_faults(|method, _| if method == "RenewLock" { CallFault::LoseResponse } else { CallFault::None });
    guard.lost().await;
    assert!(locks.is_held(NAME, guard.token()), "the renewals took effect");

    drop(guard);
    sleep(seconds(1)).await;

    assert!(!locks.is_held(NAME, 1));
}

#[tokio::test(start_paused = true)]
async fn release_reports_if_the_lock_was_still_held() {
    let locks = FakeLocks::new();
    let caller = caller([&locks.instance("a")]);
    let first = granted(&caller, options("billing-1")).await;
    assert!(first.release().await.unwrap());

    let second = granted(&caller, options("billing-1")).await;
    locks.drop_hold(NAME);

    assert!(!second.release().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_detached_hold_is_neither_renewed_nor_released() {
    let locks = FakeLocks::new();
    let guard = granted(&caller([&locks.instance("a")]), options("billing-1")).await;

    guard.detach();
    sleep(seconds(9)).await;

    assert!(locks.is_held(NAME, 1));
    assert_eq!((locks.calls("RenewLock"), locks.calls("ReleaseLock")), (0, 0));
    sleep(seconds(1)).await;
    assert!(!locks.is_held(NAME, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lost_lock_stays_lost() {
    let locks = FakeLocks::new();
    let guard = granted(&caller([&locks.instance("a")]), options("billing-1")).await;
    locks.inject_faults(|_, count| if count == 1 { CallFault::Refuse(lease_lost()) } else { CallFault::None });

    guard.lost().await;
    sleep(seconds(60)).await;

    assert!(guard.is_lost());
    assert_eq!(locks.calls("RenewLock"), 1, "an ended lease is not renewed");
}
