//! News may be lost, and instances may die: somebody looks after those who wait.

use std::time::Duration;

use redis::cmd;
use tokio::time::{Instant, timeout};

use crate::support::client::{lasting, named, once, refusal, waiting};
use crate::support::redis::Tampering;
use crate::support::{Locks, NEVER, PATIENCE, eventually, own_stack};

/// What "about a second" and "within two" may be on a busy machine.
const NOISE: Duration = Duration::from_secs(2);

async fn pubsub_connections(redis: &Tampering) -> usize {
    let clients: String = redis.run(cmd("CLIENT").arg("LIST").arg("TYPE").arg("pubsub")).await;
    clients.lines().count()
}

/// Cuts the connection over which news are heard; no other can be made.
async fn close_ears(redis: &Tampering) {
    let clients: String = redis.run(cmd("CLIENT").arg("LIST")).await;
    let room = clients.lines().count() - 1;
    redis.run::<()>(cmd("CONFIG").arg("SET").arg("maxclients").arg(room)).await;
    redis.run::<()>(cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub")).await;
}

#[tokio::test]
async fn a_lost_message_costs_at_most_about_a_second() {
    let stack = own_stack().await;
    let locks = Locks::start_on(&stack, 1, |_, _| {}).await;
    let redis = locks.redis().await;
    let hold = locks.acquire(lasting(PATIENCE * 2, once("a", "ada"))).await.unwrap().granted();
    let next = locks.acquiring(waiting("a", "bob"));
    locks.until_waiting("a", 1).await;
    eventually("news are heard", async || pubsub_connections(&redis).await == 1).await;

    close_ears(&redis).await;
    let released = Instant::now();
    locks.release(&hold).await.unwrap();
    next.await.unwrap().unwrap().granted();

    assert!(released.elapsed() < Duration::from_secs(1) + NOISE, "{:?}", released.elapsed());

    // The same for a place that a repeat takes over.
    locks.acquire(lasting(PATIENCE * 2, once("b", "ada"))).await.unwrap().granted();
    let older = locks.acquiring(named("r", waiting("b", "bob")));
    locks.until_waiting("b", 1).await;
    let newer = locks.acquiring(named("r", waiting("b", "bob")));
    assert_eq!(refusal(older.await.unwrap()), (tonic::Code::Aborted, "TAKEN_OVER".to_owned()));
    newer.abort();
    assert_eq!(pubsub_connections(&redis).await, 0);
    drop(locks);
    stack.stop().await;
}

#[tokio::test]
async fn what_was_missed_while_nothing_was_heard_is_looked_for_when_news_are_heard_again() {
    let stack = own_stack().await;
    // Nobody else would look for it.
    let locks = Locks::start_on(&stack, 1, |_, config| {
        config.locks.lock_reread_tick = NEVER.into();
        config.locks.lock_sweep_tick = NEVER.into();
    })
    .await;
    let redis = locks.redis().await;
    let mut hold = locks.acquire(lasting(PATIENCE * 2, once("a", "ada"))).await.unwrap().granted();
    for _ in 0..3 {
        eventually("news are heard", async || pubsub_connections(&redis).await == 1).await;
        let next = locks.acquiring(lasting(PATIENCE * 2, waiting("a", "bob")));
        locks.until_waiting("a", 1).await;

        close_ears(&redis).await;
        locks.release(&hold).await.unwrap();
        eventually("it is offered", async || locks.get("a").await.unwrap().holders.is_empty()).await;
        assert_eq!(pubsub_connections(&redis).await, 0, "nobody hears of it");
        redis.run::<()>(cmd("CONFIG").arg("SET").arg("maxclients").arg(1000)).await;
        hold = timeout(PATIENCE, next).await.unwrap().unwrap().unwrap().granted();
    }
    drop(locks);
    stack.stop().await;
}

#[tokio::test]
async fn a_hundred_dead_waiters_at_the_head_do_not_hold_up_a_live_one() {
    let mut locks = Locks::start_two().await;
    let hold = locks.acquire(lasting(PATIENCE * 4, once("a", "ada"))).await.unwrap().granted();
    let dead: Vec<_> = (0..100).map(|_| locks.client(1).acquiring(waiting("a", "dead"))).collect();
    locks.until_waiting("a", 100).await;
    let live = locks.acquiring(waiting("a", "live"));
    locks.until_waiting("a", 101).await;

    locks.kill(1);
    let released = Instant::now();
    locks.release(&hold).await.unwrap();
    live.await.unwrap().unwrap().granted();

    assert!(released.elapsed() < Duration::from_secs(2) + NOISE, "{:?}", released.elapsed());
    assert_eq!(locks.get("a").await.unwrap().waiter_count, 100, "they keep their places, should they come back");
    drop(dead);
}

#[tokio::test]
async fn places_of_a_dead_instance_end_by_themselves() {
    let mut locks = Locks::start_two().await;
    locks.acquire(lasting(PATIENCE * 4, once("a", "ada"))).await.unwrap();
    let dead = locks.client(1).acquiring(named("r", waiting("a", "dead")));
    locks.until_waiting("a", 1).await;
    locks.kill(1);
    assert!(dead.await.unwrap().is_err());

    let redis = locks.redis().await;
    redis.advance(Duration::from_secs(62)).await;
    locks.until_waiting("a", 0).await;
    assert_eq!((redis.size("waiters").await, redis.size("requests").await), (0, 0));
    redis.advance(Duration::from_mins(5)).await;
    eventually("the instance is forgotten", async || redis.size("instances").await == 1).await;
}

#[tokio::test]
async fn a_repeat_takes_the_place_of_a_call_whose_instance_died() {
    let mut locks = Locks::start_two().await;
    let hold = locks.acquire(lasting(PATIENCE * 4, once("a", "ada"))).await.unwrap().granted();
    let request = named("r", waiting("a", "first"));
    let dead = locks.client(1).acquiring(request.clone());
    locks.until_waiting("a", 1).await;
    let second = locks.acquiring(waiting("a", "second"));
    locks.until_waiting("a", 2).await;
    let redis = locks.redis().await;

    locks.kill(1);
    assert!(dead.await.unwrap().is_err());
    let before = redis.everything().await;
    let first = locks.acquiring(request);
    eventually("the place is taken over", async || redis.everything().await["waiters"] != before["waiters"]).await;
    locks.release(&hold).await.unwrap();

    let first = first.await.unwrap().unwrap().granted();
    locks.release(&first).await.unwrap();
    assert!(second.await.unwrap().unwrap().granted().token > first.token, "its place was the first one's");
}
