//! Retention: messages come from the ring of the instance or the stream in Redis, and trimmed ones
//! are reported in a `Gap`.

use std::time::Duration;

use tidings_broadcast::Config;
use tidings_devstack::testing::eventually;

use crate::support::BroadcastCluster;
use crate::support::client::{after, from_beginning, last};
use crate::support::stream::FrameStream;

/// Sets a ring of 10 messages and a stream of 40 in Redis.
fn small_retention(config: &mut Config) {
    config.streams.broadcast_ring_messages = 10;
    config.channels.broadcast_history_count = 40;
}

/// Asserts that a stream continues behind `offset`: with a `Gap` if messages are trimmed, then with
/// the kept messages.
async fn assert_resumed(stream: &mut FrameStream, epoch: &str, offset: i64, oldest: i64, head: i64) {
    let first = oldest.max(offset + 1);
    if first > offset + 1 {
        assert_eq!(stream.gap().await, (epoch.to_owned(), offset + 1, first - 1));
    }
    let count = usize::try_from(head - first + 1).unwrap();
    assert_eq!(stream.offsets(count).await, (first..=head).collect::<Vec<_>>(), "after {offset}");
    assert_eq!(stream.caught_up().await, (epoch.to_owned(), head));
}

#[tokio::test]
async fn a_reconnect_from_any_offset_has_no_hole_or_duplicate() {
    let cluster = BroadcastCluster::start_tuned(2, small_retention).await;
    // The ring of the second instance has the last 10, the stream the last 40.
    let listener = cluster.client(1).listen("lobby").await;
    let (epoch, head) = cluster.publish_range("lobby", 1, 70).await;

    for offset in 0..=head {
        let mut stream = cluster.client(1).subscribe(after("lobby", &epoch, offset)).await;
        assert_resumed(&mut stream, &epoch, offset, 31, head).await;
    }
    drop(listener);
}

#[tokio::test]
async fn a_thousand_messages_are_kept_and_the_rest_is_a_gap() {
    let cluster = BroadcastCluster::start().await;
    let (epoch, head) = cluster.publish_range("lobby", 1, 1100).await;
    assert_eq!(cluster.get("lobby").await.unwrap().oldest, 101);

    for offset in [0, 1, 99, 100, 101, 599, 843, 844, 1098, 1099, 1100] {
        let mut stream = cluster.subscribe(after("lobby", &epoch, offset)).await;
        assert_resumed(&mut stream, &epoch, offset, 101, head).await;
    }
    let mut stream = cluster.subscribe(from_beginning("lobby")).await;
    assert_resumed(&mut stream, &epoch, 0, 101, head).await;
}

#[tokio::test]
async fn expired_messages_are_a_gap_and_never_delivered() {
    let cluster = BroadcastCluster::start_tuned(1, |config| {
        config.channels.broadcast_history_age = Duration::from_secs(1).into();
    })
    .await;
    let (epoch, _) = cluster.publish_range("lobby", 1, 20).await;
    eventually("the messages are expired", async || cluster.get("lobby").await.unwrap().oldest == 21).await;

    for offset in [0, 5, 19, 20] {
        let mut stream = cluster.subscribe(after("lobby", &epoch, offset)).await;
        assert_resumed(&mut stream, &epoch, offset, 21, 20).await;
    }
    let mut stream = cluster.subscribe(last("lobby", 5)).await;
    assert_eq!(stream.caught_up().await, (epoch.clone(), 20));
    assert_eq!(cluster.publish_text("lobby", "21").await, (epoch, 21));
    assert_eq!(stream.text().await, "21");
}

/// `read.lua` finds the boundary by binary search.
#[tokio::test]
async fn the_expired_messages_are_found_at_any_boundary() {
    let cluster = BroadcastCluster::start().await;
    let redis = cluster.redis().await;
    let (epoch, _) = cluster.publish_range("lobby", 1, 100).await;
    let now: i64 = redis.meta("lobby", "time").await.unwrap().parse().unwrap();

    for expired in [0, 1, 2, 50, 98, 99, 100] {
        // Replaces the messages; the first `expired` of them were published more than an hour ago.
        let stream = redis.stream_key("lobby");
        redis.run::<()>(redis::cmd("DEL").arg(&stream)).await;
        for offset in 1..=100 {
            let time = if offset <= expired { now - 3_700_000_000 } else { now };
            let mut add = redis::cmd("XADD");
            add.arg(&stream).arg(format!("{offset}-0")).arg("t").arg(time).arg("b").arg("");
            redis.run::<()>(&add).await;
        }
        let oldest = expired + 1;
        assert_eq!(cluster.get("lobby").await.unwrap().oldest, oldest);
        let mut stream = cluster.subscribe(from_beginning("lobby")).await;
        assert_resumed(&mut stream, &epoch, 0, oldest, 100).await;
    }
}

#[tokio::test]
async fn a_publish_deletes_expired_messages() {
    let cluster = BroadcastCluster::start_tuned(1, |config| {
        config.channels.broadcast_history_age = Duration::from_millis(500).into();
    })
    .await;
    let redis = cluster.redis().await;
    cluster.publish_range("lobby", 1, 50).await;
    // Without a TTL, as if publishes had renewed it.
    redis.run::<()>(redis::cmd("PERSIST").arg(redis.stream_key("lobby"))).await;
    eventually("the messages are expired", async || cluster.get("lobby").await.unwrap().oldest == 51).await;

    let mut kept = 50;
    for number in 51..=65 {
        cluster.publish_text("lobby", &number.to_string()).await;
        redis.run::<()>(redis::cmd("PERSIST").arg(redis.stream_key("lobby"))).await;
        let now: i64 = redis.run(redis::cmd("XLEN").arg(redis.stream_key("lobby"))).await;
        assert!(now < kept || now < 20, "each publish deletes more than it adds: {now} of {kept}");
        kept = now;
    }
}

#[tokio::test]
async fn an_evicted_ring_is_read_from_redis() {
    let cluster = BroadcastCluster::start_tuned(1, |config| config.streams.broadcast_rings_bytes = 2000).await;
    let mut streams = Vec::new();
    for number in 0..5 {
        streams.push(cluster.listen(&number.to_string()).await);
    }
    for number in 0..5 {
        cluster.publish_range(&number.to_string(), 1, 50).await;
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        assert_eq!(stream.offsets(50).await, (1..=50).collect::<Vec<_>>());
        let mut stream = cluster.subscribe(from_beginning(&number.to_string())).await;
        assert_eq!(stream.offsets(50).await, (1..=50).collect::<Vec<_>>());
    }
}

/// The limit holds for frames from a ring and for frames from Redis.
#[tokio::test]
async fn frames_of_large_messages_stay_within_their_limit() {
    let cluster = BroadcastCluster::start().await;
    let mut live = cluster.listen("lobby").await;
    let sizes = [65_536, 65_536, 65_536, 60_000, 10, 65_536, 1, 40_000, 40_000, 40_000, 40_000, 40_000, 40_000, 40_000];
    for size in sizes {
        cluster.publish_text("lobby", &"x".repeat(size)).await;
    }

    // `messages` asserts the size of each frame.
    let mut read = cluster.subscribe(from_beginning("lobby")).await;
    for stream in [&mut live, &mut read] {
        let messages = stream.messages(sizes.len()).await;
        assert_eq!(messages.iter().map(|message| message.data.len()).collect::<Vec<_>>(), sizes);
    }
}

#[tokio::test]
async fn a_slow_reader_gets_a_whole_ring_without_a_new_publish() {
    let cluster = BroadcastCluster::start_tuned(1, |config| {
        config.streams.broadcast_ring_bytes = 16 * 1024 * 1024;
    })
    .await;
    let mut slow = cluster.client_with_small_windows(0).listen("lobby").await;
    for _ in 0..60 {
        cluster.publish_text("lobby", &"x".repeat(60_000)).await; // many frames, more than the connection buffers
    }
    assert_eq!(slow.offsets(60).await, (1..=60).collect::<Vec<_>>());
}
