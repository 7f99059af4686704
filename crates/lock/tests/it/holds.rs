//! A lock has one holder at a time, and each holder has a larger token than the one before.

use std::time::Duration;

use tidings_devstack::testing::eventually;
use tokio::time::Instant;

use crate::support::client::{AcquireResult, Released, State, once, refusal};
use crate::support::{GRACE, LockFixture, TTL};

#[tokio::test]
async fn a_second_owner_gets_the_current_holder() {
    let locks = LockFixture::start().await;

    let first = locks.take("orders/42", "billing-1").await;
    let second = locks.acquire(once("orders/42", "billing-2")).await.unwrap().held();

    assert_eq!((second.blockers.len(), second.waiting), (1, 0));
    let blocker = &second.blockers[0];
    assert_eq!((blocker.owner.as_str(), blocker.token), ("billing-1", first.token));
    let remaining = Duration::try_from(blocker.remaining.unwrap()).unwrap();
    assert!(remaining <= TTL && Duration::try_from(blocker.held_for.unwrap()).unwrap() + remaining <= TTL);
}

#[tokio::test]
async fn a_released_lock_is_free_and_the_next_token_is_larger() {
    let locks = LockFixture::start_two().await;
    let mut last = 0;
    for round in 0..10 {
        let hold = locks.client(round % 2).take("a", "ada").await;
        assert!(hold.token > last);
        last = hold.token;
        assert_eq!((hold.lease, hold.deduplicated), (TTL, false));
        assert_eq!(locks.client((round + 1) % 2).release(&hold).await.unwrap(), Released::Released);
    }
    assert!(locks.get("a").await.unwrap().holders.is_empty());
}

#[tokio::test]
async fn a_late_release_never_frees_a_newer_hold() {
    let locks = LockFixture::start().await;
    let first = locks.take("a", "ada").await;
    assert_eq!(locks.release(&first).await.unwrap(), Released::Released);
    assert_eq!(locks.release(&first).await.unwrap(), Released::NotHeld, "safe to retry");
    let second = locks.take("a", "bob").await;

    assert_eq!(locks.release(&first).await.unwrap(), Released::NotHeld);
    let mut forged = second.clone();
    forged.lease_id.clone_from(&first.lease_id);
    assert_eq!(locks.release(&forged).await.unwrap(), Released::NotHeld, "the token alone is not enough");
    forged = second.clone();
    forged.token = first.token;
    assert_eq!(locks.release(&forged).await.unwrap(), Released::NotHeld, "nor is the lease");

    assert_eq!(locks.check("a", second.token).await.unwrap().0, State::Current);
}

#[tokio::test]
async fn a_renewed_lease_lasts_its_whole_ttl_again() {
    let locks = LockFixture::start().await;
    let redis = locks.redis().await;
    let mut hold = locks.take("a", "ada").await;
    for _ in 0..4 {
        redis.advance(TTL * 3 / 4).await;
        assert_eq!(locks.renew(&mut hold).await.unwrap(), TTL);
    }
    assert_eq!(locks.check("a", hold.token).await.unwrap().0, State::Current);

    redis.advance(TTL + GRACE).await;
    let lost = locks.renew(&mut hold).await;
    assert_eq!(refusal(lost), (tonic::Code::Aborted, "LEASE_LOST".to_owned()));
}

/// The lock is granted to another client after the deadline, and never before.
#[tokio::test]
async fn a_crashed_holder_keeps_the_lock_until_its_deadline() {
    let locks = LockFixture::start().await;
    let crashed = locks.take("a", "ada").await;

    eventually("the lock is free", async || {
        let granted = locks.acquire(once("a", "bob")).await.unwrap();
        let now = Instant::now();
        match granted {
            AcquireResult::Granted(next) => {
                assert!(now >= crashed.deadline, "granted before the deadline of the first holder");
                assert!(next.token > crashed.token);
                true
            }
            _ => false,
        }
    })
    .await;
    assert_eq!(locks.check("a", crashed.token).await.unwrap(), (State::Stale, None));
}
