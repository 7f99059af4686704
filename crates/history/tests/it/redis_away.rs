//! Redis away: slower, not wrong.

use std::time::Duration;

use tidings_devstack::Devstack;

use crate::support::client::{Source, knowing, source, text};
use crate::support::{Histories, eventually, own_stack};

async fn start(stack: &Devstack) -> Histories<'_> {
    let histories = Histories::start_on(stack, 2, |_, config| {
        config.redis.redis_timeout = Some(Duration::from_millis(100).into());
    })
    .await;
    histories.fill("lobby", 20).await;
    histories.newest("lobby", 10).await;
    histories
}

/// Appends and pages go on, from Postgres.
async fn assert_slower_not_wrong(histories: &Histories<'_>, name: &str) {
    for key in 0..5 {
        let request = text("lobby", "ada", &format!("{name}-{key}"), "x");
        let appended = histories.client(key % 2).append(request.clone()).await.unwrap();
        assert!(!appended.deduplicated);
        assert!(histories.append(request).await.unwrap().deduplicated);
        let seq = appended.message.unwrap().seq;
        for place in [0, 1] {
            let page = histories.client(place).list(knowing("lobby", seq, 10)).await.unwrap();
            assert_eq!((source(page.read_info), page.last_seq), (Source::Postgres, seq));
            assert!(!page.read_info.unwrap().stale);
        }
    }
    let page = histories.newest("lobby", 200).await;
    assert_eq!((source(page.read_info), page.messages), (Source::Postgres, histories.truth("lobby").await));
}

async fn assert_fast_again(histories: &Histories<'_>) {
    for place in [0, 1] {
        eventually("the newest page comes from redis", async || {
            source(histories.client(place).newest("lobby", 10).await.read_info) == Source::Redis
        })
        .await;
    }
    histories.settled().await;
    assert_eq!(histories.newest("lobby", 200).await.messages, histories.truth("lobby").await);
}

#[tokio::test]
async fn redis_away_is_slower_not_wrong() {
    let stack = own_stack().await;
    let histories = start(&stack).await;

    stack.redis().pause();
    assert_slower_not_wrong(&histories, "paused").await;
    stack.redis().resume();
    assert_fast_again(&histories).await;

    stack.redis().kill().await;
    assert_slower_not_wrong(&histories, "killed").await;
    stack.redis().start().await.unwrap();
    assert_fast_again(&histories).await;
    drop(histories);
    stack.stop().await;
}

#[tokio::test]
async fn a_service_starts_and_serves_without_redis() {
    let stack = own_stack().await;
    stack.redis().kill().await;
    let histories = start(&stack).await;

    assert_slower_not_wrong(&histories, "absent").await;
    stack.redis().start().await.unwrap();
    assert_fast_again(&histories).await;
    drop(histories);
    stack.stop().await;
}

#[tokio::test]
async fn an_append_is_seen_though_a_replica_makes_redis_begin_another_reign() {
    let (stack, other) = (own_stack().await, own_stack().await);
    let mut histories = start(&stack).await;

    // No client is disconnected; whoever connects from now on finds another reign, and others do half a second later.
    let mut replica = redis::Client::open(other.redis().url()).unwrap().get_connection().unwrap();
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(stack.redis().port()).exec(&mut replica).unwrap();
    histories.restart(1).await;
    let there = histories.client(1);
    eventually("the other has the tail", async || source(there.newest("lobby", 10).await.read_info) == Source::Redis)
        .await;
    let appended = histories.client(0).append(text("lobby", "ada", "after", "x")).await.unwrap();
    let seq = appended.message.unwrap().seq;

    for place in [0, 1] {
        eventually("both see it, in the tail", async || {
            let page = histories.client(place).newest("lobby", 10).await;
            page.last_seq == seq && source(page.read_info) == Source::Redis
        })
        .await;
    }
    drop(histories);
    stack.stop().await;
    other.stop().await;
}
