//! Outages of Redis or Postgres: calls fail within bounds with their reason; everything else works.

use std::time::Duration;

use redis::cmd;
use tidings_devstack::Devstack;
use tidings_devstack::testing::{eventually, own_stack};
use tokio::time::Instant;
use tonic::Code;

use crate::support::LockFixture;
use crate::support::client::{AcquireResult, Released, RpcResult, State, lasting, once, waiting};

/// Limit for a response that is promised within 150 ms, for a busy machine.
const RESPONSE_MAX: Duration = Duration::from_millis(1500);

/// Starts instances with the default timeouts: the tests measure them.
async fn start(stack: &Devstack, instances: usize) -> LockFixture<'_> {
    LockFixture::start_on(stack, instances, |_, config| {
        config.redis.redis_timeout = None;
        config.postgres = tidings_postgres::Args::new(config.postgres.postgres_url.clone());
    })
    .await
}

#[track_caller]
fn assert_away<T: std::fmt::Debug>(result: RpcResult<T>, reason: &str) {
    let failure = result.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::Unavailable, reason), "{failure}");
    assert!(failure.retry_after.is_some_and(|delay| delay > Duration::ZERO), "{failure}");
}

/// With and without a wait, for a paused and for a killed Redis.
#[tokio::test]
async fn an_unavailable_redis_is_reported_within_bounds() {
    let stack = own_stack().await;
    let locks = start(&stack, 1).await;
    let mut hold = locks.acquire(lasting(Duration::from_mins(1), once("a", "ada"))).await.unwrap().granted();
    let queued = locks.spawn_acquire(waiting("a", "queued"));
    locks.wait_for_waiters("a", 1).await;

    for killed in [false, true] {
        if killed {
            stack.redis().kill().await;
        } else {
            stack.redis().pause();
        }
        for request in [once("b", "bob"), waiting("b", "bob")] {
            let sent = Instant::now();
            assert_away(locks.acquire(request).await, "STATE_AWAY");
            assert!(sent.elapsed() < RESPONSE_MAX, "{:?}", sent.elapsed());
        }
        assert_away(locks.renew(&mut hold).await, "STATE_AWAY");
        assert_away(locks.release(&hold).await, "STATE_AWAY");
        assert_away(locks.check("a", hold.token).await, "STATE_AWAY");
        assert_away(locks.get("a").await, "STATE_AWAY");
        if !killed {
            stack.redis().resume();
            eventually("redis answers", async || locks.check("a", hold.token).await.is_ok()).await;
            assert_eq!(locks.check("a", hold.token).await.unwrap().0, State::Current);
        }
    }
    assert!(!queued.is_finished(), "the waiting call ended");
    stack.redis().start().await.unwrap();
    // Only Postgres still knows the longest lease: a minute, which the test skips.
    eventually(
        "another epoch begins",
        async || matches!(locks.acquire(once("b", "bob")).await, Err(failure) if failure.reason == "QUARANTINE"),
    )
    .await;
    locks.redis().await.advance(Duration::from_secs(62)).await;
    assert!(queued.await.unwrap().unwrap().granted().token > hold.token);
    drop(locks);
    stack.stop().await;
}

#[tokio::test]
async fn a_waiting_call_survives_an_outage_of_redis() {
    let stack = own_stack().await;
    let locks = start(&stack, 2).await;
    let hold = locks.acquire(lasting(Duration::from_mins(1), once("a", "ada"))).await.unwrap().granted();
    let next = locks.client(1).spawn_acquire(waiting("a", "bob"));
    locks.wait_for_waiters("a", 1).await;

    stack.redis().pause();
    eventually("redis is unavailable", async || locks.client(1).get("a").await.is_err()).await;
    tokio::time::sleep(Duration::from_secs(2)).await; // longer than the instance timeout
    stack.redis().resume();

    eventually("the hold is released", async || locks.release(&hold).await.is_ok()).await;
    assert!(next.await.unwrap().unwrap().granted().token > hold.token);
    drop(locks);
    stack.stop().await;
}

/// Everything else works without it.
#[tokio::test]
async fn without_postgres_only_longer_leases_and_new_epochs_fail() {
    let stack = own_stack().await;
    let locks = start(&stack, 2).await;
    locks.take("warm", "up").await;
    locks.client(1).take("too", "up").await;
    stack.postgres().kill().await;

    let mut hold = locks.take("a", "ada").await;
    locks.renew(&mut hold).await.unwrap();
    let next = locks.client(1).spawn_acquire(waiting("a", "bob"));
    locks.wait_for_waiters("a", 1).await;
    assert_eq!(locks.release(&hold).await.unwrap(), Released::Released);
    let next = next.await.unwrap().unwrap().granted();
    assert_eq!(locks.check("a", next.token).await.unwrap().0, State::Current);

    let longer = lasting(Duration::from_secs(2), once("b", "ada"));
    eventually("a longer lease is refused with STORE_AWAY", async || {
        let failure = locks.acquire(longer.clone()).await.unwrap_err();
        assert!(failure.retry_after.is_some() && failure.code != Code::Internal, "{failure}");
        failure.reason == "STORE_AWAY"
    })
    .await;
    assert!(
        matches!(locks.acquire(once("b", "ada")).await.unwrap(), AcquireResult::Granted(_)),
        "the refused acquire left state behind"
    );

    locks.redis().await.run::<()>(&cmd("FLUSHALL")).await;
    for request in [once("a", "ada"), waiting("a", "ada")] {
        eventually("a new epoch is refused without postgres", async || {
            let failure = locks.acquire(request.clone()).await.unwrap_err();
            (failure.code, failure.reason.as_str()) == (Code::Unavailable, "STORE_AWAY")
        })
        .await;
    }
    assert_away(locks.release(&next).await, "STORE_AWAY");

    stack.postgres().start().await.unwrap();
    let after = locks.acquire_with_retries(waiting("a", "ada")).await.granted();
    assert!(after.token > next.token);
    drop(locks);
    stack.stop().await;
}

#[tokio::test]
async fn a_redis_out_of_memory_renews_and_releases_but_grants_nothing() {
    let stack = own_stack().await;
    let locks = start(&stack, 2).await;
    let mut hold = locks.acquire(lasting(Duration::from_mins(1), once("a", "ada"))).await.unwrap().granted();
    let next = locks.client(1).spawn_acquire(waiting("a", "bob"));
    locks.wait_for_waiters("a", 1).await;
    let redis = locks.redis().await;
    redis.run::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg(1)).await;

    assert_away(locks.acquire(once("b", "eve")).await, "STATE_AWAY");
    locks.renew(&mut hold).await.unwrap();
    assert_eq!(locks.check("a", hold.token).await.unwrap().0, State::Current);
    assert_eq!(locks.release(&hold).await.unwrap(), Released::Released);
    let next = next.await.unwrap().unwrap().granted();
    assert_eq!(locks.release(&next).await.unwrap(), Released::Released, "the hand-over failed");

    redis.run::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg(0)).await;
    eventually("locks are granted again", async || locks.acquire(once("b", "eve")).await.is_ok()).await;
    drop(locks);
    stack.stop().await;
}

#[tokio::test]
async fn a_service_starts_without_redis_and_serves_once_it_is_up() {
    let stack = own_stack().await;
    stack.redis().kill().await;
    let locks = start(&stack, 1).await;

    for request in [once("a", "ada"), waiting("a", "ada")] {
        let sent = Instant::now();
        assert_away(locks.acquire(request).await, "STATE_AWAY");
        assert!(sent.elapsed() < RESPONSE_MAX * 2, "{:?}", sent.elapsed());
    }
    stack.redis().start().await.unwrap();
    locks.acquire_with_retries(once("a", "ada")).await.granted();
    drop(locks);
    stack.stop().await;
}

#[tokio::test]
async fn a_redis_that_may_evict_keys_is_refused() {
    let stack = own_stack().await;
    let locks = LockFixture::start_on(&stack, 1, |_, _| {}).await;
    let redis = locks.redis().await;
    redis.run::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg("100mb")).await;
    redis.run::<()>(cmd("CONFIG").arg("SET").arg("maxmemory-policy").arg("allkeys-lru")).await;

    eventually(
        "the next probe finds the eviction policy",
        async || matches!(locks.acquire(once("a", "ada")).await, Err(failure) if failure.reason == "STATE_AWAY"),
    )
    .await;

    redis.run::<()>(cmd("CONFIG").arg("SET").arg("maxmemory-policy").arg("noeviction")).await;
    eventually("locks are granted again", async || locks.acquire(once("b", "eve")).await.is_ok()).await;
    drop(locks);
    stack.stop().await;
}
