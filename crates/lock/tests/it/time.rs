//! No lease ends before its time, whatever clocks and servers do.

use std::time::Duration;

use redis::cmd;
use tokio::time::Instant;

use crate::support::client::{Hold, State, lasting, named, once, waiting};
use crate::support::{GRACE, Locks, PATIENCE, TTL, eventually, own_stack};

const HOUR: i64 = 3_600_000;

#[tokio::test]
async fn a_jump_of_the_hosts_clock_ends_no_lease() {
    let locks = Locks::start().await;
    let redis = locks.redis().await;
    let ttl = Duration::from_mins(1);
    let hold = locks.acquire(lasting(ttl, once("a", "ada"))).await.unwrap().granted();
    // That Redis read another time last is the same as that the host's clock jumped since.
    for jump in [HOUR, -HOUR, 2000, -2000] {
        let before = redis.meta("clock").await;
        redis.set_meta("last", redis.meta("last").await - jump).await;
        assert_eq!(locks.check("a", hold.token).await.unwrap().0, State::Current);
        eventually("the clock goes on", async || redis.meta("clock").await > before).await;
        let passed = redis.meta("clock").await - before;
        assert!(passed < 60_000, "{passed} ms after a jump of {jump} ms");
        assert_eq!(locks.check("a", hold.token).await.unwrap().0, State::Current);
    }
}

#[tokio::test]
async fn a_small_jump_of_the_clock_takes_no_more_than_the_grace() {
    let locks = Locks::start().await;
    let redis = locks.redis().await;
    let hold = locks.take("a", "ada").await;
    redis.set_meta("last", redis.meta("last").await - 999).await; // the most that can not be told from time

    eventually("the lock is free", async || locks.check("a", hold.token).await.unwrap().0 == State::Stale).await;
    assert!(Instant::now() >= hold.deadline, "it ended {:?} early", hold.deadline - Instant::now());
}

#[tokio::test]
async fn a_redis_that_stood_still_ends_no_lease_early() {
    let stack = own_stack().await;
    let locks = Locks::start_on(&stack, 1, |_, _| {}).await;
    let hold = locks.acquire(lasting(Duration::from_secs(8), once("a", "ada"))).await.unwrap().granted();

    stack.redis().pause();
    tokio::time::sleep(Duration::from_secs(3)).await; // the promise is about time that passes
    stack.redis().resume();

    eventually("it answers", async || locks.check("a", hold.token).await.is_ok()).await;
    assert_eq!(locks.check("a", hold.token).await.unwrap().0, State::Current);
    eventually("the lock is free in the end", async || {
        locks.check("a", hold.token).await.is_ok_and(|(state, _)| state == State::Stale)
    })
    .await;
    assert!(Instant::now() >= hold.deadline);
    drop(locks);
    stack.stop().await;
}

#[tokio::test]
async fn no_key_has_an_expiry() {
    let locks = Locks::start_two().await;
    let redis = locks.redis().await;
    let hold = locks.acquire(named("r", once("a", "ada"))).await.unwrap().granted();
    locks.acquire(lasting(PATIENCE * 2, once("b", "bob"))).await.unwrap();
    let call = locks.acquiring(waiting("b", "eve"));
    locks.until_waiting("b", 1).await;
    locks.release(&hold).await.unwrap();

    for name in tidings_lock::leases::KEYS {
        let life: i64 = redis.run(cmd("PTTL").arg(redis.key(name))).await;
        assert_eq!(life, -1, "{name} is there, and has no expiry");
    }
    let all: Vec<String> = redis.run(cmd("KEYS").arg(format!("{}:lock:*", locks.prefix))).await;
    // The connections prove by a key of their own that writes are taken.
    assert_eq!(all.iter().filter(|key| key.contains("{lk00}")).count(), tidings_lock::leases::KEYS.len());
    call.abort();
}

#[tokio::test]
async fn the_lock_is_free_one_second_and_one_percent_of_the_ttl_after_what_its_holder_may_believe() {
    let locks = Locks::start().await;
    let redis = locks.redis().await;
    let ttl = Duration::from_mins(2);
    let hold = locks.acquire(lasting(ttl, once("a", "ada"))).await.unwrap().granted();
    let grace = Duration::from_secs(1) + ttl / 100;

    redis.advance(ttl).await;
    let (state, remaining) = locks.check("a", hold.token).await.unwrap();
    assert_eq!((state, remaining), (State::Current, Some(Duration::ZERO)), "nobody believes in it, and nobody gets it");
    assert_eq!(locks.acquire(once("a", "bob")).await.unwrap().held().blockers.len(), 1);
    redis.advance(grace).await;
    assert!(locks.take("a", "bob").await.token > hold.token);

    let first = locks.take("b", "ada").await;
    redis.advance(TTL + GRACE).await;
    assert!(locks.take("b", "bob").await.token > first.token);
}

#[tokio::test]
async fn the_deadline_of_a_holder_is_never_later_than_the_servers() {
    let locks = Locks::start_two().await;
    let other = locks.client(1);
    let assert_earlier = async |hold: &Hold| {
        let (_, remaining) = other.check("a", hold.token).await.unwrap();
        let servers = Instant::now() + remaining.unwrap(); // at the latest
        assert!(hold.deadline <= servers + Duration::from_millis(1), "{:?} too late", hold.deadline - servers);
    };
    let request = |number: i32| named(&number.to_string(), lasting(Duration::from_secs(20), waiting("a", "ada")));
    let mut hold = locks.acquire(request(0)).await.unwrap().granted();
    for round in 1..20 {
        assert_earlier(&hold).await;
        let repeat = locks.acquire(request(round - 1)).await.unwrap().granted();
        assert_earlier(&repeat).await;
        locks.renew(&mut hold).await.unwrap();
        assert_earlier(&hold).await;
        let next = locks.acquiring(request(round));
        locks.until_waiting("a", 1).await;
        other.release(&hold).await.unwrap();
        hold = next.await.unwrap().unwrap().granted();
    }
}
