//! Redis or Postgres away: refused within bounds and said so, and what goes on without them goes on.

use std::time::Duration;

use redis::cmd;
use tidings_devstack::Devstack;
use tokio::time::Instant;
use tonic::Code;

use crate::support::client::{Acquired, Answer, Released, State, lasting, once, waiting};
use crate::support::{Locks, eventually, own_stack};

/// The most that an answer may take that is promised within 150 ms: this is a busy machine.
const SOON: Duration = Duration::from_millis(1500);

/// The time-outs of production: what is tested is how long they take.
async fn start(stack: &Devstack, instances: usize) -> Locks<'_> {
    Locks::start_on(stack, instances, |_, config| {
        config.redis.redis_timeout = None;
        config.postgres = tidings_postgres::Args::new(config.postgres.postgres_url.clone());
    })
    .await
}

#[track_caller]
fn assert_away<T: std::fmt::Debug>(answer: Answer<T>, reason: &str) {
    let failure = answer.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::Unavailable, reason), "{failure}");
    assert!(failure.retry_after.is_some_and(|delay| delay > Duration::ZERO), "{failure}");
}

#[tokio::test]
async fn redis_away_is_told_within_bounds_whether_one_waits_or_not() {
    let stack = own_stack().await;
    let locks = start(&stack, 1).await;
    let mut hold = locks.acquire(lasting(Duration::from_mins(1), once("a", "ada"))).await.unwrap().granted();
    let queued = locks.acquiring(waiting("a", "queued"));
    locks.until_waiting("a", 1).await;

    for killed in [false, true] {
        if killed {
            stack.redis().kill().await;
        } else {
            stack.redis().pause();
        }
        for request in [once("b", "bob"), waiting("b", "bob")] {
            let begun = Instant::now();
            assert_away(locks.acquire(request).await, "STATE_AWAY");
            assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        }
        assert_away(locks.renew(&mut hold).await, "STATE_AWAY");
        assert_away(locks.release(&hold).await, "STATE_AWAY");
        assert_away(locks.check("a", hold.token).await, "STATE_AWAY");
        assert_away(locks.get("a").await, "STATE_AWAY");
        if !killed {
            stack.redis().resume();
            eventually("it answers", async || locks.check("a", hold.token).await.is_ok()).await;
            assert_eq!(locks.check("a", hold.token).await.unwrap().0, State::Current);
        }
    }
    assert!(!queued.is_finished(), "who waits goes on waiting");
    stack.redis().start().await.unwrap();
    // Nobody knows any more how long leases were, but Postgres: a minute, which is too long for a test.
    eventually(
        "there is another epoch",
        async || matches!(locks.acquire(once("b", "bob")).await, Err(failure) if failure.reason == "QUARANTINE"),
    )
    .await;
    locks.redis().await.advance(Duration::from_secs(62)).await;
    assert!(queued.await.unwrap().unwrap().granted().token > hold.token);
    drop(locks);
    stack.stop().await;
}

#[tokio::test]
async fn a_call_that_waits_goes_on_waiting_through_an_outage_of_redis() {
    let stack = own_stack().await;
    let locks = start(&stack, 2).await;
    let hold = locks.acquire(lasting(Duration::from_mins(1), once("a", "ada"))).await.unwrap().granted();
    let next = locks.client(1).acquiring(waiting("a", "bob"));
    locks.until_waiting("a", 1).await;

    stack.redis().pause();
    eventually("redis is away", async || locks.client(1).get("a").await.is_err()).await;
    tokio::time::sleep(Duration::from_secs(2)).await; // longer than an instance may be silent
    stack.redis().resume();

    eventually("it is released", async || locks.release(&hold).await.is_ok()).await;
    assert!(next.await.unwrap().unwrap().granted().token > hold.token);
    drop(locks);
    stack.stop().await;
}

#[tokio::test]
async fn without_postgres_everything_goes_on_but_longer_leases_and_epochs() {
    let stack = own_stack().await;
    let locks = start(&stack, 2).await;
    locks.take("warm", "up").await;
    locks.client(1).take("too", "up").await;
    stack.postgres().kill().await;

    let mut hold = locks.take("a", "ada").await;
    locks.renew(&mut hold).await.unwrap();
    let next = locks.client(1).acquiring(waiting("a", "bob"));
    locks.until_waiting("a", 1).await;
    assert_eq!(locks.release(&hold).await.unwrap(), Released::Released);
    let next = next.await.unwrap().unwrap().granted();
    assert_eq!(locks.check("a", next.token).await.unwrap().0, State::Current);

    let longer = lasting(Duration::from_secs(2), once("b", "ada"));
    eventually("a longer lease is refused as that", async || {
        let failure = locks.acquire(longer.clone()).await.unwrap_err();
        assert!(failure.retry_after.is_some() && failure.code != Code::Internal, "{failure}");
        failure.reason == "STORE_AWAY"
    })
    .await;
    assert!(matches!(locks.acquire(once("b", "ada")).await.unwrap(), Acquired::Granted(_)), "nothing was done before");

    locks.redis().await.run::<()>(&cmd("FLUSHALL")).await;
    for request in [once("a", "ada"), waiting("a", "ada")] {
        eventually("no epoch without postgres", async || {
            let failure = locks.acquire(request.clone()).await.unwrap_err();
            (failure.code, failure.reason.as_str()) == (Code::Unavailable, "STORE_AWAY")
        })
        .await;
    }
    assert_away(locks.release(&next).await, "STORE_AWAY");

    stack.postgres().start().await.unwrap();
    let after = locks.insist(waiting("a", "ada")).await.granted();
    assert!(after.token > next.token);
    drop(locks);
    stack.stop().await;
}

#[tokio::test]
async fn a_redis_without_memory_renews_and_releases_and_grants_nothing() {
    let stack = own_stack().await;
    let locks = start(&stack, 2).await;
    let mut hold = locks.acquire(lasting(Duration::from_mins(1), once("a", "ada"))).await.unwrap().granted();
    let next = locks.client(1).acquiring(waiting("a", "bob"));
    locks.until_waiting("a", 1).await;
    let redis = locks.redis().await;
    redis.run::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg(1)).await;

    assert_away(locks.acquire(once("b", "eve")).await, "STATE_AWAY");
    locks.renew(&mut hold).await.unwrap();
    assert_eq!(locks.check("a", hold.token).await.unwrap().0, State::Current);
    assert_eq!(locks.release(&hold).await.unwrap(), Released::Released);
    let next = next.await.unwrap().unwrap().granted();
    assert_eq!(locks.release(&next).await.unwrap(), Released::Released, "the hand-over works, too");

    redis.run::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg(0)).await;
    eventually("locks are granted again", async || locks.acquire(once("b", "eve")).await.is_ok()).await;
    drop(locks);
    stack.stop().await;
}

#[tokio::test]
async fn a_service_starts_without_redis_and_serves_when_it_is_there() {
    let stack = own_stack().await;
    stack.redis().kill().await;
    let locks = start(&stack, 1).await;

    for request in [once("a", "ada"), waiting("a", "ada")] {
        let begun = Instant::now();
        assert_away(locks.acquire(request).await, "STATE_AWAY");
        assert!(begun.elapsed() < SOON * 2, "{:?}", begun.elapsed());
    }
    stack.redis().start().await.unwrap();
    locks.insist(once("a", "ada")).await.granted();
    drop(locks);
    stack.stop().await;
}

#[tokio::test]
async fn a_redis_that_may_evict_keys_is_no_place_for_locks() {
    let stack = own_stack().await;
    let locks = Locks::start_on(&stack, 1, |_, _| {}).await;
    let redis = locks.redis().await;
    redis.run::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg("100mb")).await;
    redis.run::<()>(cmd("CONFIG").arg("SET").arg("maxmemory-policy").arg("allkeys-lru")).await;

    eventually(
        "the next probe sees it",
        async || matches!(locks.acquire(once("a", "ada")).await, Err(failure) if failure.reason == "STATE_AWAY"),
    )
    .await;

    redis.run::<()>(cmd("CONFIG").arg("SET").arg("maxmemory-policy").arg("noeviction")).await;
    eventually("locks are granted again", async || locks.acquire(once("b", "eve")).await.is_ok()).await;
    drop(locks);
    stack.stop().await;
}
