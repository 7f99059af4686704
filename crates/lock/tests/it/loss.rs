//! Redis forgets: tokens go on growing, and nobody is granted a lock in which somebody may still believe.

use std::time::Duration;

use redis::cmd;
use tidings_devstack::testing;
use tidings_lock::model::Token;
use tokio::time::Instant;
use tonic::Code;

use crate::support::client::{Acquired, Hold, Released, State, lasting, once, refusal, waiting};
use crate::support::{GRACE, Locks, TTL, eventually, own_stack};

/// What is lost with Redis is over, and everybody is told; the next grant comes when nobody can believe in the last.
async fn assert_over(locks: &Locks<'_>, lost: &mut Hold) -> Hold {
    let believed = lost.deadline;
    let next = locks.insist(waiting("a", "next")).await.granted();
    assert!(Instant::now() >= believed, "granted while the lost holder could still believe");
    assert!(next.token > lost.token, "{} after {}", next.token, lost.token);
    assert_eq!(refusal(locks.renew(lost).await), (Code::Aborted, "LEASE_LOST".to_owned()));
    assert_eq!(locks.release(lost).await.unwrap(), Released::NotHeld);
    assert_eq!(locks.check("a", lost.token).await.unwrap(), (State::Stale, None));
    assert_eq!(locks.check("a", next.token).await.unwrap().0, State::Current);
    next
}

#[tokio::test]
async fn tokens_grow_across_flushall_an_empty_restart_and_an_old_snapshot() {
    let stack = own_stack().await;
    let locks = Locks::start_on(&stack, 2, |_, _| {}).await;
    let mut hold = locks.take("a", "ada").await;

    locks.redis().await.run::<()>(&cmd("FLUSHALL")).await;
    hold = assert_over(&locks, &mut hold).await;

    stack.redis().kill().await;
    stack.redis().start().await.unwrap(); // with nothing
    hold = assert_over(&locks, &mut hold).await;

    locks.redis().await.run::<()>(&cmd("SAVE")).await; // `hold` is in there
    for _ in 0..5 {
        locks.release(&hold).await.unwrap();
        hold = locks.take("a", "ada").await;
    }
    stack.redis().kill().await;
    stack.redis().start().await.unwrap(); // with what it knew long ago
    hold = assert_over(&locks, &mut hold).await;

    // A restart in order keeps everything, and is another reign all the same.
    locks.redis().await.run::<()>(&cmd("SAVE")).await;
    stack.redis().stop().await;
    stack.redis().start().await.unwrap();
    assert_over(&locks, &mut hold).await;
    drop(locks);
    stack.stop().await;
}

#[tokio::test]
async fn in_a_quarantine_who_does_not_wait_hears_when_to_try_again_and_who_waits_waits_through_it() {
    let locks = Locks::start().await;
    let lost = locks.take("a", "ada").await;
    locks.redis().await.lose_everything().await;

    let waits = locks.acquiring(waiting("a", "bob"));
    let failure = locks.acquire(once("a", "eve")).await.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::Unavailable, "QUARANTINE"));
    let left = failure.retry_after.unwrap();
    assert!(left > Duration::ZERO && left <= TTL + GRACE, "{left:?}");
    let lock = locks.get("a").await.unwrap();
    assert!(lock.holders.is_empty() && Duration::try_from(lock.quarantine.unwrap()).unwrap() <= left);

    let granted = waits.await.unwrap().unwrap().granted();
    assert!(granted.token > lost.token && Instant::now() >= lost.deadline);
    assert_eq!(locks.get("a").await.unwrap().quarantine, None);
}

#[tokio::test]
async fn who_waits_in_vain_in_a_quarantine_had_no_place() {
    let locks = Locks::start().await;
    locks.take("a", "ada").await;
    locks.redis().await.lose_everything().await;

    let wait = crate::support::client::waiting_for("a", "bob", Duration::from_millis(200));
    let timed_out = locks.insist(wait).await.timed_out();

    assert_eq!((timed_out.position, timed_out.blockers.len()), (0, 0));
}

#[tokio::test]
async fn after_a_quarantine_the_waiters_of_an_instance_are_served_in_their_order() {
    let locks = Locks::start().await;
    let hold = locks.acquire(lasting(TTL * 2, once("a", "ada"))).await.unwrap().granted();
    let mut calls = Vec::new();
    for number in 0..6 {
        calls.push(locks.acquiring(waiting("a", &number.to_string())));
        locks.until_waiting("a", number + 1).await;
    }
    locks.redis().await.lose_everything().await;
    eventually("there is another epoch", async || locks.get("a").await.unwrap().quarantine.is_some()).await;
    calls.extend((6..9).map(|number| locks.acquiring(waiting("a", &number.to_string()))));

    let mut tokens = vec![hold.token];
    for (place, call) in calls.into_iter().enumerate() {
        let granted = call.await.unwrap().unwrap().granted();
        if place < 6 {
            assert!(granted.token > *tokens.last().unwrap(), "{place} was overtaken");
            tokens.push(granted.token);
        } else {
            assert!(granted.token > tokens[6], "those that came during the quarantine came after");
        }
        locks.release(&granted).await.unwrap();
    }
}

#[tokio::test]
async fn a_quarantine_is_as_long_as_the_longest_lease_that_may_be_believed_in() {
    let locks = Locks::start_two().await;
    let redis = locks.redis().await;
    let long = Duration::from_secs(3);
    let lost = locks.acquire(lasting(long, once("a", "ada"))).await.unwrap().granted();
    assert_eq!(locks.ask_postgres("SELECT max_ttl_ms FROM lock_epoch").await, 3000, "known of before it was granted");

    redis.lose_everything().await;
    let failure = locks.acquire(once("a", "bob")).await.unwrap_err();
    assert!(failure.retry_after.unwrap() > long, "{failure}");
    redis.lose_everything().await; // once more, in the middle of it
    let failure = locks.acquire(once("a", "bob")).await.unwrap_err();
    assert!(failure.retry_after.unwrap() > long, "{failure}");
    assert_eq!(locks.ask_postgres("SELECT max_ttl_ms FROM lock_epoch").await, 1000);
    assert_eq!(locks.ask_postgres("SELECT carry_ttl_ms FROM lock_epoch").await, 3000);

    let next = locks.client(1).insist(waiting("a", "bob")).await.granted();
    assert!(next.token > lost.token && Instant::now() >= lost.deadline);
    eventually("what was carried is forgotten", async || {
        locks.ask_postgres("SELECT carry_ttl_ms FROM lock_epoch").await == 0
    })
    .await;
    redis.lose_everything().await;
    let failure = locks.acquire(once("a", "bob")).await.unwrap_err();
    assert!(failure.retry_after.unwrap() <= TTL + GRACE, "{failure}");
}

#[tokio::test]
async fn a_restart_of_the_service_loses_nothing() {
    let mut locks = Locks::start().await;
    let mut hold = locks.acquire(lasting(Duration::from_mins(1), once("a", "ada"))).await.unwrap().granted();

    locks.stop(0).await;
    locks.restart(0).await;

    locks.renew(&mut hold).await.unwrap();
    assert_eq!(locks.epoch().await, 1);
    assert_eq!(locks.acquire(once("a", "bob")).await.unwrap().held().blockers[0].token, hold.token);
}

#[tokio::test]
async fn a_fresh_start_has_no_quarantine_and_later_losses_have() {
    let mut locks = Locks::start_on(testing::shared().await, 1, |_, config| config.locks.lock_fresh_start = true).await;
    let first = locks.take("a", "ada").await;
    locks.stop(0).await;
    locks.redis().await.lose_everything().await;

    locks.restart(0).await;
    let second = locks.take("a", "bob").await;
    assert!(second.token > first.token);

    locks.redis().await.lose_everything().await;
    assert_eq!(refusal(locks.acquire(once("a", "eve")).await), (Code::Unavailable, "QUARANTINE".to_owned()));
}

#[tokio::test]
async fn a_usual_start_on_a_redis_that_lost_its_data_has_a_quarantine() {
    let mut locks = Locks::start().await;
    let first = locks.take("a", "ada").await;
    locks.stop(0).await;
    locks.redis().await.lose_everything().await;

    locks.restart(0).await;

    assert_eq!(refusal(locks.acquire(once("a", "bob")).await), (Code::Unavailable, "QUARANTINE".to_owned()));
    assert!(locks.insist(waiting("a", "bob")).await.granted().token > first.token);
}

#[tokio::test]
async fn a_lost_row_of_postgres_costs_the_longest_quarantine_and_no_token_is_given_twice() {
    let mut locks = Locks::start().await;
    let redis = locks.redis().await;
    let first = locks.take("a", "ada").await;
    locks.stop(0).await;
    locks.tell_postgres("DELETE FROM lock_epoch").await;

    locks.restart(0).await;
    let failure = locks.acquire(once("a", "bob")).await.unwrap_err();
    assert_eq!(failure.reason, "QUARANTINE");
    assert!(failure.retry_after.unwrap() > Duration::from_mins(5), "{failure}");
    redis.advance(Duration::from_secs(304)).await;
    assert!(locks.insist(once("a", "bob")).await.granted().token > first.token);
}

#[tokio::test]
async fn an_epoch_whose_numbers_are_used_up_is_followed_by_the_next() {
    let locks = Locks::start().await;
    let redis = locks.redis().await;
    locks.take("first", "ada").await;
    redis.set_meta("seq", Token::SEQ_END - 1).await;
    let mut last = locks.take("a", "ada").await;
    assert_eq!(last.token, (1 << 40) + Token::SEQ_END);

    assert_eq!(refusal(locks.acquire(once("b", "bob")).await), (Code::Unavailable, "QUARANTINE".to_owned()));
    let next = assert_over(&locks, &mut last).await;
    assert_eq!(next.token, (2 << 40) + 1);
}

#[tokio::test]
async fn a_token_that_was_never_given_is_unknown() {
    let locks = Locks::start().await;
    let first = locks.take("a", "ada").await;
    locks.release(&first).await.unwrap();
    let hold = locks.acquire(lasting(Duration::from_mins(1), once("a", "ada"))).await.unwrap().granted();
    let next = locks.acquiring(waiting("a", "bob"));
    locks.until_waiting("a", 1).await;

    let expected = [
        (hold.token, State::Current),
        (first.token, State::Stale),
        (hold.token + 1, State::Unknown),
        (hold.token + (1 << 40), State::Unknown),
        (i64::MAX, State::Unknown),
        (1, State::Unknown), // of an epoch before the first
    ];
    for (token, state) in expected {
        let (found, remaining) = locks.check("a", token).await.unwrap();
        assert_eq!((found, remaining.is_some()), (state, state == State::Current), "{token}");
    }
    assert_eq!(locks.check("b", hold.token).await.unwrap().0, State::Stale, "it is another lock's");
    next.abort();
}

#[tokio::test]
async fn a_hold_of_another_lock_is_lost_with_all_the_others() {
    let locks = Locks::start().await;
    let redis = locks.redis().await;
    let mut holds = Vec::new();
    for name in ["a", "b", "c"] {
        holds.push(locks.take(name, "ada").await);
    }
    redis.lose_everything().await;

    for hold in &mut holds {
        let Ok(Acquired::Granted(_)) = locks.acquire(once("d", "bob")).await else {
            assert_eq!(refusal(locks.renew(hold).await), (Code::Aborted, "LEASE_LOST".to_owned()));
            continue;
        };
        panic!("granted in a quarantine");
    }
}
