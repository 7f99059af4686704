//! Redis unavailable: the service is slower but correct.

use std::time::Duration;

use tidings_devstack::Devstack;
use tidings_devstack::testing::{eventually, own_stack};

use crate::support::HistoryCluster;
use crate::support::client::{Source, newest_with_min_seq, source, text};

async fn start(stack: &Devstack) -> HistoryCluster<'_> {
    let cluster = HistoryCluster::start_on(stack, 2, |_, config| {
        config.redis.redis_timeout = Some(Duration::from_millis(100).into());
    })
    .await;
    cluster.fill("lobby", 20).await;
    cluster.newest("lobby", 10).await;
    cluster
}

/// Checks that appends succeed and that pages come from Postgres.
async fn assert_slower_not_wrong(cluster: &HistoryCluster<'_>, name: &str) {
    for key in 0..5 {
        let request = text("lobby", "ada", &format!("{name}-{key}"), "x");
        let appended = cluster.client(key % 2).append(request.clone()).await.unwrap();
        assert!(!appended.deduplicated);
        assert!(cluster.append(request).await.unwrap().deduplicated);
        let seq = appended.message.unwrap().seq;
        for index in [0, 1] {
            let page = cluster.client(index).list(newest_with_min_seq("lobby", seq, 10)).await.unwrap();
            assert_eq!((source(page.read_info), page.last_seq), (Source::Postgres, seq));
            assert!(!page.read_info.unwrap().stale);
        }
    }
    let page = cluster.newest("lobby", 200).await;
    assert_eq!((source(page.read_info), page.messages), (Source::Postgres, cluster.truth("lobby").await));
}

async fn assert_fast_again(cluster: &HistoryCluster<'_>) {
    for index in [0, 1] {
        eventually("the newest page comes from redis", async || {
            source(cluster.client(index).newest("lobby", 10).await.read_info) == Source::Redis
        })
        .await;
    }
    cluster.wait_until_relayed().await;
    assert_eq!(cluster.newest("lobby", 200).await.messages, cluster.truth("lobby").await);
}

/// Redis is first paused, then killed.
#[tokio::test]
async fn without_redis_the_service_is_slower_but_correct() {
    let stack = own_stack().await;
    let cluster = start(&stack).await;

    stack.redis().pause();
    assert_slower_not_wrong(&cluster, "paused").await;
    stack.redis().resume();
    assert_fast_again(&cluster).await;

    stack.redis().kill().await;
    assert_slower_not_wrong(&cluster, "killed").await;
    stack.redis().start().await.unwrap();
    assert_fast_again(&cluster).await;
    drop(cluster);
    stack.stop().await;
}

#[tokio::test]
async fn a_service_starts_and_serves_without_redis() {
    let stack = own_stack().await;
    stack.redis().kill().await;
    let cluster = start(&stack).await;

    assert_slower_not_wrong(&cluster, "absent").await;
    stack.redis().start().await.unwrap();
    assert_fast_again(&cluster).await;
    drop(cluster);
    stack.stop().await;
}

/// Redis starts another incarnation when it gets its first replica. A message appended through the
/// old one is visible to all instances.
#[tokio::test]
async fn an_append_survives_a_new_incarnation_of_redis() {
    let (stack, other) = (own_stack().await, own_stack().await);
    let mut cluster = start(&stack).await;

    // Redis disconnects no client. New connections find the new incarnation at once, existing ones
    // half a second later.
    let mut replica = redis::Client::open(other.redis().url()).unwrap().get_connection().unwrap();
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(stack.redis().port()).exec(&mut replica).unwrap();
    cluster.restart(1).await;
    let other_client = cluster.client(1);
    eventually("the other instance has the tail", async || {
        source(other_client.newest("lobby", 10).await.read_info) == Source::Redis
    })
    .await;
    let appended = cluster.client(0).append(text("lobby", "ada", "after", "x")).await.unwrap();
    let seq = appended.message.unwrap().seq;

    for index in [0, 1] {
        eventually("both instances read it from the tail", async || {
            let page = cluster.client(index).newest("lobby", 10).await;
            page.last_seq == seq && source(page.read_info) == Source::Redis
        })
        .await;
    }
    drop(cluster);
    stack.stop().await;
    other.stop().await;
}
