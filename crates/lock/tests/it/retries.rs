//! Retries of an acquire: one hold and one queue entry, whichever instance receives them.

use std::time::Duration;

use tidings_devstack::testing::{self, NEVER, PATIENCE, eventually};
use tidings_proto::lock as pb;
use tonic::Code;

use crate::support::client::{State, lasting, named, once, refusal, waiting, waiting_for};
use crate::support::{LockFixture, TTL};

#[tokio::test]
async fn a_retry_on_another_instance_renews_the_same_hold() {
    let locks = LockFixture::start_two().await;
    let redis = locks.redis().await;
    let first = locks.acquire(named("r", once("a", "ada"))).await.unwrap().granted();
    redis.advance(TTL / 2).await;

    let retry = locks.client(1).acquire(named("r", waiting("a", "ada"))).await.unwrap().granted();

    assert_eq!((retry.token, &retry.lease_id), (first.token, &first.lease_id));
    assert_eq!((first.deduplicated, retry.deduplicated), (false, true));
    redis.advance(TTL * 3 / 4).await;
    let (state, remaining) = locks.check("a", first.token).await.unwrap();
    assert_eq!(state, State::Current);
    assert!(remaining.unwrap() > Duration::ZERO, "not renewed");
    locks.release(&first).await.unwrap();
    assert!(locks.get("a").await.unwrap().holders.is_empty());
}

/// The older call gets `TAKEN_OVER`.
#[tokio::test]
async fn a_retry_takes_over_the_queue_position_of_the_older_call() {
    let locks =
        LockFixture::start_on(testing::shared().await, 2, |_, config| config.locks.lock_reread_tick = NEVER.into())
            .await;
    let hold = locks.acquire(lasting(PATIENCE * 2, once("a", "holder"))).await.unwrap().granted();
    let older = locks.spawn_acquire(named("r", waiting("a", "ada")));
    locks.wait_for_waiters("a", 1).await;
    let behind = locks.spawn_acquire(waiting("a", "behind"));
    locks.wait_for_waiters("a", 2).await;

    let newer = locks.client(1).spawn_acquire(named("r", waiting("a", "ada")));

    let failure = older.await.unwrap().unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::Aborted, "TAKEN_OVER"));
    assert_eq!(locks.get("a").await.unwrap().waiter_count, 2, "the older call cancelled the waiter");
    locks.release(&hold).await.unwrap();
    let granted = newer.await.unwrap().unwrap().granted();
    assert!(!granted.deduplicated, "no earlier call was granted the hold");
    locks.release(&granted).await.unwrap();
    behind.await.unwrap().unwrap().granted();
}

#[tokio::test]
async fn a_retry_without_wait_gives_up_the_queue_position() {
    let locks = LockFixture::start_two().await;
    locks.acquire(lasting(PATIENCE * 2, once("a", "holder"))).await.unwrap();
    let older = locks.spawn_acquire(named("r", waiting("a", "ada")));
    locks.wait_for_waiters("a", 1).await;

    let held = locks.client(1).acquire(named("r", once("a", "ada"))).await.unwrap().held();

    assert_eq!((held.blockers.len(), held.waiting), (1, 0));
    assert_eq!(refusal(older.await.unwrap()), (Code::Aborted, "TAKEN_OVER".to_owned()));
    assert_eq!(locks.get("a").await.unwrap().waiter_count, 0);
}

#[tokio::test]
async fn a_request_whose_hold_is_over_gets_lease_over_for_ten_minutes() {
    let locks = LockFixture::start_two().await;
    let redis = locks.redis().await;
    let released = locks.acquire(named("released", once("a", "ada"))).await.unwrap().granted();
    let waited = locks.spawn_acquire(named("waited", waiting("a", "ada")));
    locks.wait_for_waiters("a", 1).await;
    locks.release(&released).await.unwrap();
    let waited = waited.await.unwrap().unwrap().granted();
    redis.advance(TTL * 4).await; // the hold expires

    for (request, hold) in [("released", &released), ("waited", &waited)] {
        for wait in [Duration::ZERO, Duration::from_secs(1)] {
            let failure = locks.client(1).acquire(named(request, waiting_for("a", "ada", wait))).await.unwrap_err();
            assert_eq!((failure.code, failure.reason.as_str()), (Code::FailedPrecondition, "LEASE_OVER"));
            assert_eq!(failure.metadata["token"], hold.token.to_string());
        }
    }
    redis.advance(Duration::from_secs(590)).await;
    let remembered = locks.acquire(named("released", once("a", "ada"))).await;
    assert_eq!(refusal(remembered), (Code::FailedPrecondition, "LEASE_OVER".to_owned()));

    redis.advance(Duration::from_secs(11)).await;
    eventually("the request is forgotten", async || locks.redis().await.size("requests").await == 0).await;
    let next = locks.acquire(named("released", once("a", "ada"))).await.unwrap().granted();
    assert!(next.token > waited.token);
}

#[tokio::test]
async fn a_request_id_names_one_acquire() {
    let locks = LockFixture::start().await;
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
async fn a_request_without_a_grant_is_not_remembered() {
    let locks = LockFixture::start().await;
    let hold = locks.take("a", "ada").await;

    locks.acquire(named("r", once("a", "bob"))).await.unwrap().held();
    let waited = named("r", waiting_for("a", "bob", Duration::from_millis(100)));
    locks.acquire(waited).await.unwrap().timed_out();
    assert_eq!(locks.redis().await.size("requests").await, 0);

    locks.release(&hold).await.unwrap();
    assert!(!locks.acquire(named("r", once("b", "bob"))).await.unwrap().granted().deduplicated);
}

#[tokio::test]
async fn after_a_loss_of_redis_a_retry_is_a_new_request() {
    let locks = LockFixture::start().await;
    let first = locks.acquire(named("r", once("a", "ada"))).await.unwrap().granted();
    locks.redis().await.lose_state().await;

    let retry = locks.acquire(named("r", waiting("a", "ada"))).await.unwrap().granted();

    assert!(retry.token > first.token && !retry.deduplicated);
    assert_ne!(retry.lease_id, first.lease_id);
}
