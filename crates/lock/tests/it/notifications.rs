//! Lost notifications and dead instances: the waiters are served nevertheless.

use std::time::Duration;

use redis::cmd;
use tidings_devstack::testing::{NEVER, PATIENCE, eventually, own_stack};
use tokio::time::{Instant, timeout};

use crate::support::LockFixture;
use crate::support::client::{lasting, named, once, refusal, waiting};
use crate::support::redis::LockRedis;

/// Slack of the time limits, for a busy machine.
const SLACK: Duration = Duration::from_secs(2);

async fn pubsub_connections(redis: &LockRedis) -> usize {
    let clients: String = redis.run(cmd("CLIENT").arg("LIST").arg("TYPE").arg("pubsub")).await;
    clients.lines().count()
}

/// Cuts the pub/sub connection, and leaves no room for another one.
async fn cut_pubsub(redis: &LockRedis) {
    let clients: String = redis.run(cmd("CLIENT").arg("LIST")).await;
    let room = clients.lines().count() - 1;
    redis.run::<()>(cmd("CONFIG").arg("SET").arg("maxclients").arg(room)).await;
    redis.run::<()>(cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub")).await;
}

#[tokio::test]
async fn a_lost_notification_costs_at_most_about_a_second() {
    let stack = own_stack().await;
    let locks = LockFixture::start_on(&stack, 1, |_, _| {}).await;
    let redis = locks.redis().await;
    let hold = locks.acquire(lasting(PATIENCE * 2, once("a", "ada"))).await.unwrap().granted();
    let next = locks.spawn_acquire(waiting("a", "bob"));
    locks.wait_for_waiters("a", 1).await;
    eventually("the instance is subscribed", async || pubsub_connections(&redis).await == 1).await;

    cut_pubsub(&redis).await;
    let released = Instant::now();
    locks.release(&hold).await.unwrap();
    next.await.unwrap().unwrap().granted();

    assert!(released.elapsed() < Duration::from_secs(1) + SLACK, "{:?}", released.elapsed());

    // A waiter that a retry takes over is found the same way.
    locks.acquire(lasting(PATIENCE * 2, once("b", "ada"))).await.unwrap().granted();
    let older = locks.spawn_acquire(named("r", waiting("b", "bob")));
    locks.wait_for_waiters("b", 1).await;
    let newer = locks.spawn_acquire(named("r", waiting("b", "bob")));
    assert_eq!(refusal(older.await.unwrap()), (tonic::Code::Aborted, "TAKEN_OVER".to_owned()));
    newer.abort();
    assert_eq!(pubsub_connections(&redis).await, 0);
    drop(locks);
    stack.stop().await;
}

#[tokio::test]
async fn a_resubscription_finds_the_offers_missed_meanwhile() {
    let stack = own_stack().await;
    // Rechecks and sweeps, which would find the offer as well, are off.
    let locks = LockFixture::start_on(&stack, 1, |_, config| {
        config.locks.lock_reread_tick = NEVER.into();
        config.locks.lock_sweep_tick = NEVER.into();
    })
    .await;
    let redis = locks.redis().await;
    let mut hold = locks.acquire(lasting(PATIENCE * 2, once("a", "ada"))).await.unwrap().granted();
    for _ in 0..3 {
        eventually("the instance is subscribed", async || pubsub_connections(&redis).await == 1).await;
        let next = locks.spawn_acquire(lasting(PATIENCE * 2, waiting("a", "bob")));
        locks.wait_for_waiters("a", 1).await;

        cut_pubsub(&redis).await;
        locks.release(&hold).await.unwrap();
        eventually("the lock is offered", async || locks.get("a").await.unwrap().holders.is_empty()).await;
        assert_eq!(pubsub_connections(&redis).await, 0, "the notification had a receiver");
        redis.run::<()>(cmd("CONFIG").arg("SET").arg("maxclients").arg(1000)).await;
        hold = timeout(PATIENCE, next).await.unwrap().unwrap().unwrap().granted();
    }
    drop(locks);
    stack.stop().await;
}

#[tokio::test]
async fn a_hundred_dead_waiters_ahead_do_not_delay_a_live_one() {
    let mut locks = LockFixture::start_two().await;
    let hold = locks.acquire(lasting(PATIENCE * 4, once("a", "ada"))).await.unwrap().granted();
    let dead: Vec<_> = (0..100).map(|_| locks.client(1).spawn_acquire(waiting("a", "dead"))).collect();
    locks.wait_for_waiters("a", 100).await;
    let live = locks.spawn_acquire(waiting("a", "live"));
    locks.wait_for_waiters("a", 101).await;

    locks.kill(1);
    let released = Instant::now();
    locks.release(&hold).await.unwrap();
    live.await.unwrap().unwrap().granted();

    assert!(released.elapsed() < Duration::from_secs(2) + SLACK, "{:?}", released.elapsed());
    assert_eq!(locks.get("a").await.unwrap().waiter_count, 100, "dead waiters keep their positions");
    drop(dead);
}

#[tokio::test]
async fn waiters_of_a_dead_instance_expire() {
    let mut locks = LockFixture::start_two().await;
    locks.acquire(lasting(PATIENCE * 4, once("a", "ada"))).await.unwrap();
    let dead = locks.client(1).spawn_acquire(named("r", waiting("a", "dead")));
    locks.wait_for_waiters("a", 1).await;
    locks.kill(1);
    assert!(dead.await.unwrap().is_err());

    let redis = locks.redis().await;
    redis.advance(Duration::from_secs(62)).await;
    locks.wait_for_waiters("a", 0).await;
    assert_eq!((redis.size("waiters").await, redis.size("requests").await), (0, 0));
    redis.advance(Duration::from_mins(5)).await;
    eventually("the instance is forgotten", async || redis.size("instances").await == 1).await;
}

#[tokio::test]
async fn a_retry_takes_over_the_waiter_of_a_dead_instance() {
    let mut locks = LockFixture::start_two().await;
    let hold = locks.acquire(lasting(PATIENCE * 4, once("a", "ada"))).await.unwrap().granted();
    let request = named("r", waiting("a", "first"));
    let dead = locks.client(1).spawn_acquire(request.clone());
    locks.wait_for_waiters("a", 1).await;
    let second = locks.spawn_acquire(waiting("a", "second"));
    locks.wait_for_waiters("a", 2).await;
    let redis = locks.redis().await;

    locks.kill(1);
    assert!(dead.await.unwrap().is_err());
    let before = redis.snapshot().await;
    let first = locks.spawn_acquire(request);
    eventually("the waiter is taken over", async || redis.snapshot().await["waiters"] != before["waiters"]).await;
    locks.release(&hold).await.unwrap();

    let first = first.await.unwrap().unwrap().granted();
    locks.release(&first).await.unwrap();
    assert!(second.await.unwrap().unwrap().granted().token > first.token, "the retry was behind the second waiter");
}
