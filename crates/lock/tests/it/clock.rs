//! No lease ends early, under clock jumps and paused servers.

use std::time::Duration;

use redis::cmd;
use tidings_devstack::testing::{PATIENCE, eventually, own_stack};
use tokio::time::Instant;

use crate::support::client::{HeldLock, State, lasting, named, once, waiting};
use crate::support::{GRACE, LockFixture, TTL};

const HOUR: i64 = 3_600_000;

#[tokio::test]
async fn a_jump_of_the_hosts_clock_ends_no_lease() {
    let locks = LockFixture::start().await;
    let redis = locks.redis().await;
    let ttl = Duration::from_mins(1);
    let hold = locks.acquire(lasting(ttl, once("a", "ada"))).await.unwrap().granted();
    // Changing the time that Redis read last has the effect of a jump of the host's clock.
    for jump in [HOUR, -HOUR, 2000, -2000] {
        let before = redis.meta("clock").await;
        redis.set_meta("last", redis.meta("last").await - jump).await;
        assert_eq!(locks.check("a", hold.token).await.unwrap().0, State::Current);
        eventually("the clock advances", async || redis.meta("clock").await > before).await;
        let passed = redis.meta("clock").await - before;
        assert!(passed < 60_000, "{passed} ms after a jump of {jump} ms");
        assert_eq!(locks.check("a", hold.token).await.unwrap().0, State::Current);
    }
}

#[tokio::test]
async fn a_small_clock_jump_costs_no_more_than_the_grace() {
    let locks = LockFixture::start().await;
    let redis = locks.redis().await;
    let hold = locks.take("a", "ada").await;
    redis.set_meta("last", redis.meta("last").await - 999).await; // the largest jump that passes as elapsed time

    eventually("the lock is free", async || locks.check("a", hold.token).await.unwrap().0 == State::Stale).await;
    assert!(Instant::now() >= hold.deadline, "it ended {:?} early", hold.deadline - Instant::now());
}

#[tokio::test]
async fn a_paused_redis_ends_no_lease_early() {
    let stack = own_stack().await;
    let locks = LockFixture::start_on(&stack, 1, |_, _| {}).await;
    let hold = locks.acquire(lasting(Duration::from_secs(8), once("a", "ada"))).await.unwrap().granted();

    stack.redis().pause();
    tokio::time::sleep(Duration::from_secs(3)).await; // real time: the promise is about elapsed time
    stack.redis().resume();

    eventually("redis answers", async || locks.check("a", hold.token).await.is_ok()).await;
    assert_eq!(locks.check("a", hold.token).await.unwrap().0, State::Current);
    eventually("the lease expires", async || {
        locks.check("a", hold.token).await.is_ok_and(|(state, _)| state == State::Stale)
    })
    .await;
    assert!(Instant::now() >= hold.deadline);
    drop(locks);
    stack.stop().await;
}

#[tokio::test]
async fn no_key_has_an_expiry() {
    let locks = LockFixture::start_two().await;
    let redis = locks.redis().await;
    let hold = locks.acquire(named("r", once("a", "ada"))).await.unwrap().granted();
    locks.acquire(lasting(PATIENCE * 2, once("b", "bob"))).await.unwrap();
    let call = locks.spawn_acquire(waiting("b", "eve"));
    locks.wait_for_waiters("b", 1).await;
    locks.release(&hold).await.unwrap();

    for name in tidings_lock::leases::KEYS {
        let life: i64 = redis.run(cmd("PTTL").arg(redis.key(name))).await;
        assert_eq!(life, -1, "{name} exists, without an expiry");
    }
    let all: Vec<String> = redis.run(cmd("KEYS").arg(format!("{}:lock:*", locks.prefix))).await;
    // Each connection checks that writes are accepted with a key of its own.
    assert_eq!(all.iter().filter(|key| key.contains("{lk00}")).count(), tidings_lock::leases::KEYS.len());
    call.abort();
}

/// The grace is one second and one per cent of the `ttl`.
#[tokio::test]
async fn a_lock_is_free_one_grace_after_its_holders_deadline() {
    let locks = LockFixture::start().await;
    let redis = locks.redis().await;
    let ttl = Duration::from_mins(2);
    let hold = locks.acquire(lasting(ttl, once("a", "ada"))).await.unwrap().granted();
    let grace = Duration::from_secs(1) + ttl / 100;

    redis.advance(ttl).await;
    let (state, remaining) = locks.check("a", hold.token).await.unwrap();
    assert_eq!((state, remaining), (State::Current, Some(Duration::ZERO)), "past its deadline, and not yet free");
    assert_eq!(locks.acquire(once("a", "bob")).await.unwrap().held().blockers.len(), 1);
    redis.advance(grace).await;
    assert!(locks.take("a", "bob").await.token > hold.token);

    let first = locks.take("b", "ada").await;
    redis.advance(TTL + GRACE).await;
    assert!(locks.take("b", "bob").await.token > first.token);
}

#[tokio::test]
async fn a_holders_deadline_is_never_later_than_the_servers() {
    let locks = LockFixture::start_two().await;
    let other = locks.client(1);
    let assert_earlier = async |hold: &HeldLock| {
        let (_, remaining) = other.check("a", hold.token).await.unwrap();
        let servers = Instant::now() + remaining.unwrap(); // an upper bound
        assert!(hold.deadline <= servers + Duration::from_millis(1), "{:?} too late", hold.deadline - servers);
    };
    let request = |number: i32| named(&number.to_string(), lasting(Duration::from_secs(20), waiting("a", "ada")));
    let mut hold = locks.acquire(request(0)).await.unwrap().granted();
    for round in 1..20 {
        assert_earlier(&hold).await;
        let retry = locks.acquire(request(round - 1)).await.unwrap().granted();
        assert_earlier(&retry).await;
        locks.renew(&mut hold).await.unwrap();
        assert_earlier(&hold).await;
        let next = locks.spawn_acquire(request(round));
        locks.wait_for_waiters("a", 1).await;
        other.release(&hold).await.unwrap();
        hold = next.await.unwrap().unwrap().granted();
    }
}
