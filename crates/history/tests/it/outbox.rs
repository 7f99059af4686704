//! Missed tail updates: the relay brings them from the outbox, and until then no page is wrong.

use tidings_history::Config;

use crate::support::client::{Source, newest_with_min_seq, source};
use crate::support::{HistoryCluster, seqs};
use tidings_devstack::testing::{self, eventually};

/// Configures the first instance with an unreachable Redis.
fn without_redis(index: usize, config: &mut Config) {
    if index == 0 {
        config.redis.redis_url = "redis://127.0.0.1:1".parse().unwrap();
        config.redis.redis_timeout = Some(std::time::Duration::from_millis(50).into());
    }
}

/// A page without `min_seq` may lack a message whose tail update Redis missed.
#[tokio::test]
async fn min_seq_closes_the_gap_of_a_missed_tail_update() {
    let cluster = HistoryCluster::start_without_relay(testing::shared().await, 2, without_redis).await;
    let (writer, reader) = (cluster.client(0), cluster.client(1));
    reader.fill("lobby", 5).await;
    reader.newest("lobby", 5).await;

    writer.say("lobby", "ada", "missed").await;

    let plain = reader.newest("lobby", 3).await;
    assert_eq!((source(plain.read_info), seqs(&plain.messages), plain.last_seq), (Source::Redis, vec![3, 4, 5], 5));
    let fresh = reader.list(newest_with_min_seq("lobby", 6, 3)).await.unwrap();
    assert_eq!((seqs(&fresh.messages), fresh.last_seq), (vec![4, 5, 6], 6));
    // The read with min_seq reloaded the tail for all readers.
    let plain = reader.newest("lobby", 3).await;
    assert_eq!((source(plain.read_info), seqs(&plain.messages)), (Source::Redis, vec![4, 5, 6]));

    // A gap before the next message makes the tail unreadable: no page skips the missed message.
    writer.say("lobby", "ada", "missed-too").await;
    reader.say("lobby", "bob", "seen").await;
    assert_eq!(seqs(&reader.newest("lobby", 3).await.messages), [6, 7, 8]);
    let failure = reader.list(newest_with_min_seq("lobby", 9, 3)).await.unwrap_err();
    assert_eq!((failure.reason.as_str(), failure.metadata["last_seq"].as_str()), ("SEQ_AHEAD", "8"));
}

#[tokio::test]
async fn the_relay_brings_a_missed_tail_update() {
    let cluster = HistoryCluster::start_on(testing::shared().await, 2, without_redis).await;
    let (writer, reader) = (cluster.client(0), cluster.client(1));
    reader.fill("lobby", 5).await;
    reader.newest("lobby", 5).await;

    for round in 1..=3 {
        for key in ["a", "b", "c"] {
            writer.say("lobby", "ada", &format!("{round}-{key}")).await;
        }
        let last = 5 + 3 * round;
        eventually("the relay has updated the tail", async || {
            let page = reader.newest("lobby", 4).await;
            source(page.read_info) == Source::Redis && page.last_seq == last
        })
        .await;
    }
    cluster.wait_until_relayed().await;
    assert_eq!(reader.newest("lobby", 200).await.messages, cluster.truth("lobby").await);
}
