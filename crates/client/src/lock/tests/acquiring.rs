//! From the wish to the grant.

use tokio::time::{Instant, sleep};
use tonic::Status;

use super::*;
use crate::caller::Error;
use crate::fake::locks::{Fault, Locks, draining, taken_over};

#[tokio::test(start_paused = true)]
async fn a_free_lock_is_granted_with_a_token_and_a_lease() {
    let locks = Locks::new();
    let caller = caller([&locks.instance("a")]);

    let guard = granted(&caller, options("billing-1")).await;

    assert_eq!((guard.token(), guard.lease_id()), (1, "lease-1"));
    assert_eq!(guard.deadline().remaining(), seconds(10));
    assert!(locks.is_held(NAME, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_somebody_holds_is_not_granted_and_the_holder_is_named() {
    let locks = Locks::new();
    let caller = caller([&locks.instance("a")]);
    let _guard = granted(&caller, options("billing-1")).await;

    let Acquired::Held { blockers, waiting } = LockGuard::acquire(&caller, options("billing-2")).await.unwrap() else {
        panic!("it is held");
    };

    assert_eq!((blockers[0].owner.as_str(), blockers[0].token, waiting), ("billing-1", 1, 3));
}

#[tokio::test(start_paused = true)]
async fn a_lock_can_be_waited_for_longer_than_any_other_call_may_take() {
    let locks = Locks::new();
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
async fn a_lock_waited_for_in_vain_says_so_and_who_holds_it() {
    let locks = Locks::new();
    let caller = caller([&locks.instance("a")]);
    let _guard = granted(&caller, options("billing-1")).await;

    let waited = LockGuard::acquire(&caller, waiting("billing-2", seconds(5))).await.unwrap();

    let Acquired::TimedOut { blockers, position } = waited else { panic!("{waited:?}") };
    assert_eq!((blockers[0].owner.as_str(), position), ("billing-1", 1));
}

#[tokio::test(start_paused = true)]
async fn an_acquire_whose_answer_was_lost_is_repeated_and_has_the_same_hold() {
    let locks = Locks::new();
    let caller = caller([&locks.instance("a"), &locks.instance("b")]);
    locks.misbehave(|_, count| if count < 3 { Fault::LoseAnswer } else { Fault::None });

    let guard = granted(&caller, options("billing-1")).await;

    assert_eq!(guard.token(), 1);
    assert!(guard.grant().deduplicated);
    let acquires = locks.state().acquires.clone();
    assert_eq!(acquires.len(), 3);
    assert!(acquires.iter().all(|acquire| acquire.request_id == acquires[0].request_id), "{acquires:?}");
}

#[tokio::test(start_paused = true)]
async fn two_acquires_are_two_requests() {
    let locks = Locks::new();
    let caller = caller([&locks.instance("a")]);

    let _guard = granted(&caller, options("billing-1")).await;
    LockGuard::acquire(&caller, options("billing-1")).await.unwrap();

    let acquires = locks.state().acquires.clone();
    assert_ne!(acquires[0].request_id, acquires[1].request_id);
}

#[tokio::test(start_paused = true)]
async fn a_repeat_waits_only_for_what_is_left() {
    let locks = Locks::new();
    let (a, b) = (locks.instance("a"), locks.instance("b"));
    let caller = caller([&a, &b]);
    let _guard = granted(&caller, options("billing-1")).await;
    let begin = Instant::now();

    let (waited, ()) = tokio::join!(LockGuard::acquire(&caller, waiting("billing-2", seconds(10))), async {
        sleep(seconds(4)).await;
        a.cut();
        b.cut();
    });

    assert!(matches!(waited, Ok(Acquired::TimedOut { .. })), "{waited:?}");
    assert_eq!(begin.elapsed().as_secs(), 10);
    let last = locks.state().acquires.last().cloned().unwrap();
    assert_eq!(last.wait.unwrap().seconds, 5, "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn a_repeat_that_has_no_time_left_to_wait_is_still_a_wait_in_vain() {
    let locks = Locks::new();
    let a = locks.instance("a");
    let caller = caller([&a]);
    let _guard = granted(&caller, options("billing-1")).await;

    let (waited, ()) = tokio::join!(LockGuard::acquire(&caller, waiting("billing-2", seconds(10))), async {
        sleep(seconds(10)).await;
        a.cut();
    });

    assert!(matches!(waited, Ok(Acquired::TimedOut { position: 0, .. })), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_shuts_down_sends_its_waiters_to_another() {
    let locks = Locks::new();
    let caller = caller([&locks.instance("a"), &locks.instance("b")]);
    locks.misbehave(|_, count| if count == 1 { Fault::Refuse(draining()) } else { Fault::None });

    let guard = granted(&caller, waiting("billing-1", seconds(10))).await;

    assert_eq!((guard.token(), locks.calls("AcquireLock")), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_whose_place_was_taken_by_an_earlier_one_is_repeated() {
    let locks = Locks::new();
    let caller = caller([&locks.instance("a")]);
    locks.misbehave(|_, count| if count == 1 { Fault::Refuse(taken_over()) } else { Fault::None });

    assert_eq!(granted(&caller, options("billing-1")).await.token(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_counts_from_before_the_request_was_sent() {
    let locks = Locks::new();
    let caller = caller_with([&locks.instance("a")], policy(seconds(30), seconds(60)));
    locks.misbehave(|_, _| Fault::DelayAnswer(seconds(4)));

    let guard = granted(&caller, options("billing-1")).await;

    assert_eq!(guard.deadline().remaining(), seconds(6));
}

#[tokio::test(start_paused = true)]
async fn the_time_that_the_request_waited_at_the_service_is_not_lost() {
    let locks = Locks::new();
    let caller = caller([&locks.instance("a")]);
    let first = granted(&caller, options("billing-1")).await;

    let (second, ()) = tokio::join!(granted(&caller, waiting("billing-2", seconds(30))), async {
        sleep(seconds(20)).await;
        first.release().await.unwrap();
    });

    assert!(second.deadline().remaining() > seconds(9), "{:?}", second.deadline().remaining());
    assert_eq!(locks.calls("AcquireLock"), 2, "one each");
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_is_over_when_its_answer_comes_is_not_believed_but_acquired_anew() {
    let locks = Locks::new();
    let caller = caller_with([&locks.instance("a")], policy(seconds(30), seconds(60)));
    let late = |method, count| match (method, count) {
        ("AcquireLock", 1) => Fault::DelayAnswer(seconds(15)),
        _ => Fault::None,
    };
    locks.misbehave(late);

    let guard = granted(&caller, options("billing-1")).await;

    assert_eq!(guard.token(), 2);
    assert!(!guard.is_lost());
    assert!(locks.is_held(NAME, 2));
}

#[tokio::test(start_paused = true)]
async fn a_request_id_of_the_caller_is_used_once_and_its_end_is_told() {
    let locks = Locks::new();
    let caller = caller([&locks.instance("a")]);
    let mine = || AcquireOptions { request_id: Some("nightly-1".into()), ..options("billing-1") };

    let first = granted(&caller, mine()).await;
    assert!(granted(&caller, mine()).await.grant().deduplicated);
    first.release().await.unwrap();
    let error = LockGuard::acquire(&caller, mine()).await.unwrap_err();

    assert_eq!(error.contradiction().unwrap().reason, "LEASE_OVER");
}

#[tokio::test(start_paused = true)]
async fn what_is_malformed_is_refused_at_once() {
    let locks = Locks::new();
    let caller = caller([&locks.instance("a")]);
    locks.misbehave(|_, _| Fault::Refuse(Status::invalid_argument("no such name")));

    let error = LockGuard::acquire(&caller, waiting("billing-1", seconds(10))).await.unwrap_err();

    assert!(matches!(error, Error::Refused { method: "AcquireLock", .. }), "{error}");
    assert_eq!(locks.calls("AcquireLock"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_away_is_given_up_when_the_patience_ends() {
    let locks = Locks::new();
    let a = locks.instance("a");
    let caller = caller([&a]);
    a.kill();
    let begin = Instant::now();

    let error = LockGuard::acquire(&caller, options("billing-1")).await.unwrap_err();

    assert!(error.to_string().contains("a:1: connection refused"), "{error}");
    assert!((5..=10).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}
