//! The same acquire again: one hold, one place in the queue, whichever instance it is sent to.

use std::time::Duration;

use tidings_devstack::testing;
use tidings_proto::lock as pb;
use tonic::Code;

use crate::support::client::{State, lasting, named, once, refusal, waiting, waiting_for};
use crate::support::{Locks, NEVER, PATIENCE, TTL, eventually};

#[tokio::test]
async fn a_repeat_on_another_instance_is_granted_the_same_hold_and_renews_it() {
    let locks = Locks::start_two().await;
    let redis = locks.redis().await;
    let first = locks.acquire(named("r", once("a", "ada"))).await.unwrap().granted();
    redis.advance(TTL / 2).await;

    let repeat = locks.client(1).acquire(named("r", waiting("a", "ada"))).await.unwrap().granted();

    assert_eq!((repeat.token, &repeat.lease_id), (first.token, &first.lease_id));
    assert_eq!((first.deduplicated, repeat.deduplicated), (false, true));
    redis.advance(TTL * 3 / 4).await;
    let (state, remaining) = locks.check("a", first.token).await.unwrap();
    assert_eq!(state, State::Current);
    assert!(remaining.unwrap() > Duration::ZERO, "it was renewed");
    locks.release(&first).await.unwrap();
    assert!(locks.get("a").await.unwrap().holders.is_empty());
}

#[tokio::test]
async fn a_repeat_takes_the_place_in_the_queue_over_and_the_older_call_is_told() {
    let locks =
        Locks::start_on(testing::shared().await, 2, |_, config| config.locks.lock_reread_tick = NEVER.into()).await;
    let hold = locks.acquire(lasting(PATIENCE * 2, once("a", "holder"))).await.unwrap().granted();
    let older = locks.acquiring(named("r", waiting("a", "ada")));
    locks.until_waiting("a", 1).await;
    let behind = locks.acquiring(waiting("a", "behind"));
    locks.until_waiting("a", 2).await;

    let newer = locks.client(1).acquiring(named("r", waiting("a", "ada")));

    let failure = older.await.unwrap().unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::Aborted, "TAKEN_OVER"));
    assert_eq!(locks.get("a").await.unwrap().waiter_count, 2, "the end of the older call gave nothing up");
    locks.release(&hold).await.unwrap();
    let granted = newer.await.unwrap().unwrap().granted();
    assert!(!granted.deduplicated, "no earlier call had been granted it");
    locks.release(&granted).await.unwrap();
    behind.await.unwrap().unwrap().granted();
}

#[tokio::test]
async fn a_repeat_that_does_not_want_to_wait_gives_the_place_up() {
    let locks = Locks::start_two().await;
    locks.acquire(lasting(PATIENCE * 2, once("a", "holder"))).await.unwrap();
    let older = locks.acquiring(named("r", waiting("a", "ada")));
    locks.until_waiting("a", 1).await;

    let held = locks.client(1).acquire(named("r", once("a", "ada"))).await.unwrap().held();

    assert_eq!((held.blockers.len(), held.waiting), (1, 0));
    assert_eq!(refusal(older.await.unwrap()), (Code::Aborted, "TAKEN_OVER".to_owned()));
    assert_eq!(locks.get("a").await.unwrap().waiter_count, 0);
}

#[tokio::test]
async fn a_request_whose_hold_is_over_is_lease_over_for_ten_minutes() {
    let locks = Locks::start_two().await;
    let redis = locks.redis().await;
    let released = locks.acquire(named("released", once("a", "ada"))).await.unwrap().granted();
    let waited = locks.acquiring(named("waited", waiting("a", "ada")));
    locks.until_waiting("a", 1).await;
    locks.release(&released).await.unwrap();
    let waited = waited.await.unwrap().unwrap().granted();
    redis.advance(TTL * 4).await; // it ran out

    for (request, hold) in [("released", &released), ("waited", &waited)] {
        for wait in [Duration::ZERO, Duration::from_secs(1)] {
            let failure = locks.client(1).acquire(named(request, waiting_for("a", "ada", wait))).await.unwrap_err();
            assert_eq!((failure.code, failure.reason.as_str()), (Code::FailedPrecondition, "LEASE_OVER"));
            assert_eq!(failure.metadata["token"], hold.token.to_string());
        }
    }
    redis.advance(Duration::from_secs(590)).await;
    let still = locks.acquire(named("released", once("a", "ada"))).await;
    assert_eq!(refusal(still), (Code::FailedPrecondition, "LEASE_OVER".to_owned()));

    redis.advance(Duration::from_secs(11)).await;
    eventually("the request is forgotten", async || locks.redis().await.size("requests").await == 0).await;
    let anew = locks.acquire(named("released", once("a", "ada"))).await.unwrap().granted();
    assert!(anew.token > waited.token);
}

#[tokio::test]
async fn a_request_id_names_one_acquire() {
    let locks = Locks::start().await;
    let request = named("r", lasting(Duration::from_secs(2), once("a", "ada")));
    let hold = locks.acquire(request.clone()).await.unwrap().granted();
    let others = [
        pb::AcquireLockRequest { name: "b".to_owned(), ..request.clone() },
        pb::AcquireLockRequest { owner: "bob".to_owned(), ..request.clone() },
        lasting(Duration::from_secs(3), request.clone()),
    ];
    for other in others.clone() {
        assert_eq!(refusal(locks.acquire(other).await), (Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned()));
    }
    assert_eq!(locks.acquire(request).await.unwrap().granted().token, hold.token);
    locks.release(&hold).await.unwrap();
    for other in others {
        assert_eq!(refusal(locks.acquire(other).await), (Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned()));
    }
}

#[tokio::test]
async fn a_try_in_vain_is_not_remembered() {
    let locks = Locks::start().await;
    let hold = locks.take("a", "ada").await;

    locks.acquire(named("r", once("a", "bob"))).await.unwrap().held();
    let waited = named("r", waiting_for("a", "bob", Duration::from_millis(100)));
    locks.acquire(waited).await.unwrap().timed_out();
    assert_eq!(locks.redis().await.size("requests").await, 0);

    locks.release(&hold).await.unwrap();
    assert!(!locks.acquire(named("r", once("b", "bob"))).await.unwrap().granted().deduplicated);
}

#[tokio::test]
async fn after_a_loss_of_redis_a_repeat_is_a_new_request() {
    let locks = Locks::start().await;
    let first = locks.acquire(named("r", once("a", "ada"))).await.unwrap().granted();
    locks.redis().await.lose_everything().await;

    let repeat = locks.acquire(named("r", waiting("a", "ada"))).await.unwrap().granted();

    assert!(repeat.token > first.token && !repeat.deduplicated);
    assert_ne!(repeat.lease_id, first.lease_id);
}
