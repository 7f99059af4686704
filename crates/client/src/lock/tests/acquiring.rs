//! Acquiring: grants, waits, retries and errors.

use tokio::time::{Instant, sleep};
use tonic::Status;

use super::*;
use crate::error::Error;
use crate::fake::locks::{CallFault, FakeLocks, draining, taken_over};

#[tokio::test(start_paused = true)]
async fn a_free_lock_is_granted_with_a_token_and_a_lease() {
    let locks = FakeLocks::new();
    let caller = caller([&locks.instance("a")]);

    let guard = granted(&caller, options("billing-1")).await;

    assert_eq!((guard.token(), guard.lease_id()), (1, "lease-1"));
    assert_eq!(guard.deadline().remaining(), seconds(10));
    assert!(locks.is_held(NAME, 1));
}

#[tokio::test(start_paused = true)]
async fn a_held_lock_is_not_granted_and_its_holder_is_named() {
    let locks = FakeLocks::new();
    let caller = caller([&locks.instance("a")]);
    let _guard = granted(&caller, options("billing-1")).await;

    let Acquisition::Held { blockers, waiting } = LockGuard::acquire(&caller, options("billing-2")).await.unwrap()
    else {
        panic!("expected Held");
    };

    assert_eq!((blockers[0].owner.as_str(), blockers[0].token, waiting), ("billing-1", 1, 3));
}

#[tokio::test(start_paused = true)]
async fn an_acquire_may_wait_longer_than_the_call_timeout() {
    let locks = FakeLocks::new();
    let caller = caller([&locks.instance("a")]);
    let first = granted(&caller, options("billing-1")).await;
    let begin = Instant::now();

    let (second, ()) = tokio::join!(granted(&caller, waiting("billing-2", seconds(60))), async {
        sleep(seconds(45)).await;
        first.release().await.unwrap();
    });

    assert_eq!((second.token(), begin.elapsed().as_secs()), (2, 45));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_times_out_names_the_holder() {
    let locks = FakeLocks::new();
    let caller = caller([&locks.instance("a")]);
    let _guard = granted(&caller, options("billing-1")).await;

    let waited = LockGuard::acquire(&caller, waiting("billing-2", seconds(5))).await.unwrap();

    let Acquisition::TimedOut { blockers, position } = waited else { panic!("{waited:?}") };
    assert_eq!((blockers[0].owner.as_str(), position), ("billing-1", 1));
}

/// The service recognizes the request id and returns the grant of the first attempt.
#[tokio::test(start_paused = true)]
async fn a_retry_after_a_lost_response_gets_the_same_hold() {
    let locks = FakeLocks::new();
    let caller = caller([&locks.instance("a"), &locks.instance("b")]);
    locks.inject_faults(|_, count| if count < 3 { CallFault::LoseResponse } else { CallFault::None });

    let guard = granted(&caller, options("billing-1")).await;

    assert_eq!(guard.token(), 1);
    assert!(guard.grant().deduplicated);
    let acquires = locks.state().acquires.clone();
    assert_eq!(acquires.len(), 3);
    assert!(acquires.iter().all(|acquire| acquire.request_id == acquires[0].request_id), "{acquires:?}");
}

#[tokio::test(start_paused = true)]
async fn two_acquires_are_two_requests() {
    let locks = FakeLocks::new();
    let caller = caller([&locks.instance("a")]);

    let _guard = granted(&caller, options("billing-1")).await;
    LockGuard::acquire(&caller, options("billing-1")).await.unwrap();

    let acquires = locks.state().acquires.clone();
    assert_ne!(acquires[0].request_id, acquires[1].request_id);
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_only_for_the_rest_of_the_wait() {
    let locks = FakeLocks::new();
    let (a, b) = (locks.instance("a"), locks.instance("b"));
    let caller = caller([&a, &b]);
    let _guard = granted(&caller, options("billing-1")).await;
    let begin = Instant::now();

    let (waited, ()) = tokio::join!(LockGuard::acquire(&caller, waiting("billing-2", seconds(10))), async {
        sleep(seconds(4)).await;
        a.cut();
        b.cut();
    });

    assert!(matches!(waited, Ok(Acquisition::TimedOut { .. })), "{waited:?}");
    assert_eq!(begin.elapsed().as_secs(), 10);
    let last = locks.state().acquires.last().cloned().unwrap();
    assert_eq!(last.wait.unwrap().seconds, 5, "{last:?}");
}

/// The service returns Held; the client reports TimedOut, because the caller did wait.
#[tokio::test(start_paused = true)]
async fn a_retry_with_no_wait_left_reports_a_timeout() {
    let locks = FakeLocks::new();
    let a = locks.instance("a");
    let caller = caller([&a]);
    let _guard = granted(&caller, options("billing-1")).await;

    let (waited, ()) = tokio::join!(LockGuard::acquire(&caller, waiting("billing-2", seconds(10))), async {
        sleep(seconds(10)).await;
        a.cut();
    });

    assert!(matches!(waited, Ok(Acquisition::TimedOut { position: 0, .. })), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn waiters_of_a_draining_instance_move_to_another() {
    let locks = FakeLocks::new();
    let caller = caller([&locks.instance("a"), &locks.instance("b")]);
    locks.inject_faults(|_, count| if count == 1 { CallFault::Refuse(draining()) } else { CallFault::None });

    let guard = granted(&caller, waiting("billing-1", seconds(10))).await;

    assert_eq!((guard.token(), locks.calls("AcquireLock")), (1, 2));
}

/// TAKEN_OVER is only a reason for a retry: the earlier attempt has no reader any more.
#[tokio::test(start_paused = true)]
async fn an_attempt_superseded_by_an_earlier_one_is_retried() {
    let locks = FakeLocks::new();
    let caller = caller([&locks.instance("a")]);
    locks.inject_faults(|_, count| if count == 1 { CallFault::Refuse(taken_over()) } else { CallFault::None });

    assert_eq!(granted(&caller, options("billing-1")).await.token(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_counts_from_before_the_request_was_sent() {
    let locks = FakeLocks::new();
    let caller = caller_with([&locks.instance("a")], policy(seconds(30), seconds(60)));
    locks.inject_faults(|_, _| CallFault::DelayResponse(seconds(4)));

    let guard = granted(&caller, options("billing-1")).await;

    assert_eq!(guard.deadline().remaining(), seconds(6));
}

/// The lease starts when the lock is granted, not when the request is sent.
#[tokio::test(start_paused = true)]
async fn time_spent_waiting_at_the_service_is_not_lost() {
    let locks = FakeLocks::new();
    let caller = caller([&locks.instance("a")]);
    let first = granted(&caller, options("billing-1")).await;

    let (second, ()) = tokio::join!(granted(&caller, waiting("billing-2", seconds(30))), async {
        sleep(seconds(20)).await;
        first.release().await.unwrap();
    });

    assert!(second.deadline().remaining() > seconds(9), "{:?}", second.deadline().remaining());
    assert_eq!(locks.calls("AcquireLock"), 2, "one call per acquire");
}

/// Its response arrives after the lease expired, so the client must not use the grant.
#[tokio::test(start_paused = true)]
async fn a_grant_that_expired_in_flight_is_acquired_again() {
    let locks = FakeLocks::new();
    let caller = caller_with([&locks.instance("a")], policy(seconds(30), seconds(60)));
    let late = |method, count| match (method, count) {
        ("AcquireLock", 1) => CallFault::DelayResponse(seconds(15)),
        _ => CallFault::None,
    };
    locks.inject_faults(late);

    let guard = granted(&caller, options("billing-1")).await;

    assert_eq!(guard.token(), 2);
    assert!(!guard.is_lost());
    assert!(locks.is_held(NAME, 2));
}

/// While the lease lives, the same id gets the same hold; afterwards it gets LEASE_OVER.
#[tokio::test(start_paused = true)]
async fn a_request_id_of_the_caller_is_granted_once() {
    let locks = FakeLocks::new();
    let caller = caller([&locks.instance("a")]);
    let mine = || AcquireOptions { request_id: Some("nightly-1".into()), ..options("billing-1") };

    let first = granted(&caller, mine()).await;
    assert!(granted(&caller, mine()).await.grant().deduplicated);
    first.release().await.unwrap();
    let error = LockGuard::acquire(&caller, mine()).await.unwrap_err();

    assert_eq!(error.precondition_failure().unwrap().reason, "LEASE_OVER");
}

#[tokio::test(start_paused = true)]
async fn a_malformed_request_is_refused_without_a_retry() {
    let locks = FakeLocks::new();
    let caller = caller([&locks.instance("a")]);
    locks.inject_faults(|_, _| CallFault::Refuse(Status::invalid_argument("no such name")));

    let error = LockGuard::acquire(&caller, waiting("billing-1", seconds(10))).await.unwrap_err();

    assert!(matches!(error, Error::Refused { method: "AcquireLock", .. }), "{error}");
    assert_eq!(locks.calls("AcquireLock"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_acquire_is_given_up_when_the_patience_ends() {
    let locks = FakeLocks::new();
    let a = locks.instance("a");
    let caller = caller([&a]);
    a.kill();
    let begin = Instant::now();

    let error = LockGuard::acquire(&caller, options("billing-1")).await.unwrap_err();

    assert!(error.to_string().contains("a:1: connection refused"), "{error}");
    assert!((5..=10).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}
