//! Loss of Redis: tokens keep growing, and no lock is granted while a lost lease may still be held.

use std::time::Duration;

use redis::cmd;
use tidings_devstack::testing::{self, eventually, own_stack};
use tidings_lock::model::FencingToken;
use tokio::time::Instant;
use tonic::Code;

use crate::support::client::{AcquireResult, HeldLock, Released, State, lasting, once, refusal, waiting};
use crate::support::{GRACE, LockFixture, TTL};

/// Asserts that a lost hold is over for all calls, and that the next grant comes after its
/// deadline.
async fn assert_over(locks: &LockFixture<'_>, lost: &mut HeldLock) -> HeldLock {
    let deadline = lost.deadline;
    let next = locks.acquire_with_retries(waiting("a", "next")).await.granted();
    assert!(Instant::now() >= deadline, "granted before the deadline of the lost holder");
    assert!(next.token > lost.token, "{} after {}", next.token, lost.token);
    assert_eq!(refusal(locks.renew(lost).await), (Code::Aborted, "LEASE_LOST".to_owned()));
    assert_eq!(locks.release(lost).await.unwrap(), Released::NotHeld);
    assert_eq!(locks.check("a", lost.token).await.unwrap(), (State::Stale, None));
    assert_eq!(locks.check("a", next.token).await.unwrap().0, State::Current);
    next
}

/// Neither an empty restart nor one from a snapshot repeats a token.
#[tokio::test]
async fn tokens_grow_across_flushall_restart_and_an_old_snapshot() {
    let stack = own_stack().await;
    let locks = LockFixture::start_on(&stack, 2, |_, _| {}).await;
    let mut hold = locks.take("a", "ada").await;

    locks.redis().await.run::<()>(&cmd("FLUSHALL")).await;
    hold = assert_over(&locks, &mut hold).await;

    stack.redis().kill().await;
    stack.redis().start().await.unwrap(); // empty
    hold = assert_over(&locks, &mut hold).await;

    locks.redis().await.run::<()>(&cmd("SAVE")).await; // a snapshot with `hold`
    for _ in 0..5 {
        locks.release(&hold).await.unwrap();
        hold = locks.take("a", "ada").await;
    }
    stack.redis().kill().await;
    stack.redis().start().await.unwrap(); // from the old snapshot
    hold = assert_over(&locks, &mut hold).await;

    // A graceful restart keeps all data, and is another incarnation nevertheless.
    locks.redis().await.run::<()>(&cmd("SAVE")).await;
    stack.redis().stop().await;
    stack.redis().start().await.unwrap();
    assert_over(&locks, &mut hold).await;
    drop(locks);
    stack.stop().await;
}

/// The refusal says when to retry.
#[tokio::test]
async fn a_quarantine_refuses_calls_without_wait_and_delays_waiters() {
    let locks = LockFixture::start().await;
    let lost = locks.take("a", "ada").await;
    locks.redis().await.lose_state().await;

    let waiting_call = locks.spawn_acquire(waiting("a", "bob"));
    let failure = locks.acquire(once("a", "eve")).await.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::Unavailable, "QUARANTINE"));
    let left = failure.retry_after.unwrap();
    assert!(left > Duration::ZERO && left <= TTL + GRACE, "{left:?}");
    let lock = locks.get("a").await.unwrap();
    assert!(lock.holders.is_empty() && Duration::try_from(lock.quarantine.unwrap()).unwrap() <= left);

    let granted = waiting_call.await.unwrap().unwrap().granted();
    assert!(granted.token > lost.token && Instant::now() >= lost.deadline);
    assert_eq!(locks.get("a").await.unwrap().quarantine, None);
}

#[tokio::test]
async fn a_wait_that_ends_in_a_quarantine_had_no_queue_position() {
    let locks = LockFixture::start().await;
    locks.take("a", "ada").await;
    locks.redis().await.lose_state().await;

    let wait = crate::support::client::waiting_for("a", "bob", Duration::from_millis(200));
    let timed_out = locks.acquire_with_retries(wait).await.timed_out();

    assert_eq!((timed_out.position, timed_out.blockers.len()), (0, 0));
}

#[tokio::test]
async fn after_a_quarantine_waiters_are_served_in_order_of_arrival() {
    let locks = LockFixture::start().await;
    let hold = locks.acquire(lasting(TTL * 2, once("a", "ada"))).await.unwrap().granted();
    let mut calls = Vec::new();
    for number in 0..6 {
        calls.push(locks.spawn_acquire(waiting("a", &number.to_string())));
        locks.wait_for_waiters("a", number + 1).await;
    }
    locks.redis().await.lose_state().await;
    eventually("another epoch begins", async || locks.get("a").await.unwrap().quarantine.is_some()).await;
    calls.extend((6..9).map(|number| locks.spawn_acquire(waiting("a", &number.to_string()))));

    let mut tokens = vec![hold.token];
    for (index, call) in calls.into_iter().enumerate() {
        let granted = call.await.unwrap().unwrap().granted();
        if index < 6 {
            assert!(granted.token > *tokens.last().unwrap(), "{index} was overtaken");
            tokens.push(granted.token);
        } else {
            assert!(granted.token > tokens[6], "calls from the quarantine come after the lost waiters");
        }
        locks.release(&granted).await.unwrap();
    }
}

/// Also if another loss of Redis interrupts a quarantine.
#[tokio::test]
async fn a_quarantine_lasts_as_long_as_the_longest_lease_possible() {
    let locks = LockFixture::start_two().await;
    let redis = locks.redis().await;
    let long = Duration::from_secs(3);
    let lost = locks.acquire(lasting(long, once("a", "ada"))).await.unwrap().granted();
    assert_eq!(locks.query_postgres("SELECT max_ttl_ms FROM lock_epoch").await, 3000, "recorded before the grant");

    redis.lose_state().await;
    let failure = locks.acquire(once("a", "bob")).await.unwrap_err();
    assert!(failure.retry_after.unwrap() > long, "{failure}");
    redis.lose_state().await; // again, during the quarantine
    let failure = locks.acquire(once("a", "bob")).await.unwrap_err();
    assert!(failure.retry_after.unwrap() > long, "{failure}");
    assert_eq!(locks.query_postgres("SELECT max_ttl_ms FROM lock_epoch").await, 1000);
    assert_eq!(locks.query_postgres("SELECT carry_ttl_ms FROM lock_epoch").await, 3000);

    let next = locks.client(1).acquire_with_retries(waiting("a", "bob")).await.granted();
    assert!(next.token > lost.token && Instant::now() >= lost.deadline);
    eventually("the carried ttl is cleared", async || {
        locks.query_postgres("SELECT carry_ttl_ms FROM lock_epoch").await == 0
    })
    .await;
    redis.lose_state().await;
    let failure = locks.acquire(once("a", "bob")).await.unwrap_err();
    assert!(failure.retry_after.unwrap() <= TTL + GRACE, "{failure}");
}

#[tokio::test]
async fn a_restart_of_the_service_loses_nothing() {
    let mut locks = LockFixture::start().await;
    let mut hold = locks.acquire(lasting(Duration::from_mins(1), once("a", "ada"))).await.unwrap().granted();

    locks.stop(0).await;
    locks.restart(0).await;

    locks.renew(&mut hold).await.unwrap();
    assert_eq!(locks.epoch().await, 1);
    assert_eq!(locks.acquire(once("a", "bob")).await.unwrap().held().blockers[0].token, hold.token);
}

#[tokio::test]
async fn a_fresh_start_has_no_quarantine_and_later_losses_have() {
    let mut locks =
        LockFixture::start_on(testing::shared().await, 1, |_, config| config.locks.lock_fresh_start = true).await;
    let first = locks.take("a", "ada").await;
    locks.stop(0).await;
    locks.redis().await.lose_state().await;

    locks.restart(0).await;
    let second = locks.take("a", "bob").await;
    assert!(second.token > first.token);

    locks.redis().await.lose_state().await;
    assert_eq!(refusal(locks.acquire(once("a", "eve")).await), (Code::Unavailable, "QUARANTINE".to_owned()));
}

#[tokio::test]
async fn a_normal_start_after_a_loss_of_redis_has_a_quarantine() {
    let mut locks = LockFixture::start().await;
    let first = locks.take("a", "ada").await;
    locks.stop(0).await;
    locks.redis().await.lose_state().await;

    locks.restart(0).await;

    assert_eq!(refusal(locks.acquire(once("a", "bob")).await), (Code::Unavailable, "QUARANTINE".to_owned()));
    assert!(locks.acquire_with_retries(waiting("a", "bob")).await.granted().token > first.token);
}

/// No token is granted twice.
#[tokio::test]
async fn a_lost_epoch_row_costs_the_longest_quarantine_and_no_token() {
    let mut locks = LockFixture::start().await;
    let redis = locks.redis().await;
    let first = locks.take("a", "ada").await;
    locks.stop(0).await;
    locks.execute_in_postgres("DELETE FROM lock_epoch").await;

    locks.restart(0).await;
    let failure = locks.acquire(once("a", "bob")).await.unwrap_err();
    assert_eq!(failure.reason, "QUARANTINE");
    assert!(failure.retry_after.unwrap() > Duration::from_mins(5), "{failure}");
    redis.advance(Duration::from_secs(304)).await;
    assert!(locks.acquire_with_retries(once("a", "bob")).await.granted().token > first.token);
}

#[tokio::test]
async fn an_epoch_out_of_sequence_numbers_is_followed_by_the_next() {
    let locks = LockFixture::start().await;
    let redis = locks.redis().await;
    locks.take("first", "ada").await;
    redis.set_meta("seq", FencingToken::SEQ_END - 1).await;
    let mut last = locks.take("a", "ada").await;
    assert_eq!(last.token, (1 << 40) + FencingToken::SEQ_END);

    assert_eq!(refusal(locks.acquire(once("b", "bob")).await), (Code::Unavailable, "QUARANTINE".to_owned()));
    let next = assert_over(&locks, &mut last).await;
    assert_eq!(next.token, (2 << 40) + 1);
}

#[tokio::test]
async fn a_token_that_was_never_granted_is_unknown() {
    let locks = LockFixture::start().await;
    let first = locks.take("a", "ada").await;
    locks.release(&first).await.unwrap();
    let hold = locks.acquire(lasting(Duration::from_mins(1), once("a", "ada"))).await.unwrap().granted();
    let next = locks.spawn_acquire(waiting("a", "bob"));
    locks.wait_for_waiters("a", 1).await;

    let expected = [
        (hold.token, State::Current),
        (first.token, State::Stale),
        (hold.token + 1, State::Unknown),
        (hold.token + (1 << 40), State::Unknown),
        (i64::MAX, State::Unknown),
        (1, State::Unknown), // before the first epoch
    ];
    for (token, state) in expected {
        let (found, remaining) = locks.check("a", token).await.unwrap();
        assert_eq!((found, remaining.is_some()), (state, state == State::Current), "{token}");
    }
    assert_eq!(locks.check("b", hold.token).await.unwrap().0, State::Stale, "the token of another lock");
    next.abort();
}

#[tokio::test]
async fn a_loss_of_redis_ends_the_holds_of_every_lock() {
    let locks = LockFixture::start().await;
    let redis = locks.redis().await;
    let mut holds = Vec::new();
    for name in ["a", "b", "c"] {
        holds.push(locks.take(name, "ada").await);
    }
    redis.lose_state().await;

    for hold in &mut holds {
        let Ok(AcquireResult::Granted(_)) = locks.acquire(once("d", "bob")).await else {
            assert_eq!(refusal(locks.renew(hold).await), (Code::Aborted, "LEASE_LOST".to_owned()));
            continue;
        };
        panic!("granted in a quarantine");
    }
}

/// Postgres was restored from a copy that is older than the epoch. If Redis lost its data before
/// that was noticed, tokens would be granted twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_epoch_that_postgres_has_lost_is_followed_by_another() {
    let stack = own_stack().await;
    let locks = LockFixture::start_on(&stack, 2, |_, _| {}).await;
    let database = locks.database.rsplit('/').next().unwrap().to_owned();
    locks.take("a", "ada").await;
    stack.postgres().back_up_database(&database, "copy").await.unwrap();
    locks.redis().await.run::<()>(&cmd("FLUSHALL")).await;
    let mut hold = locks.acquire_with_retries(waiting("a", "bob")).await.granted();

    stack.postgres().restore_database(&database, "copy").await.unwrap();

    let refused = async || {
        let refused = locks.acquire(once("b", "eve")).await;
        refused.is_err_and(|failure| failure.reason == "QUARANTINE")
    };
    eventually("the next epoch begins with a quarantine", refused).await;
    let epoch = testing::query_number(&locks.database, "SELECT epoch FROM lock_epoch").await;
    assert!(epoch << 40 > hold.token, "epoch {epoch} after token {}", hold.token);
    assert_eq!(refusal(locks.renew(&mut hold).await), (Code::Aborted, "LEASE_LOST".to_owned()));
}
