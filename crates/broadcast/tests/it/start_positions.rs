//! Start positions of a stream: latest, behind a position, the last N.

use tidings_devstack::testing::eventually;

use crate::support::BroadcastCluster;
use crate::support::client::{after, from_beginning, last, latest};

/// The stream gets every message published after the response.
#[tokio::test]
async fn a_stream_from_latest_gets_only_newer_messages() {
    let cluster = BroadcastCluster::start_two().await;
    let (epoch, _) = cluster.publish_range("lobby", 1, 5).await;

    for round in 0..20 {
        let before = 5 + 2 * round;
        // Every message published after the response is delivered, even before `CaughtUp`.
        let mut stream = cluster.client(1).subscribe(latest("lobby")).await;
        cluster.publish_range("lobby", before + 1, before + 2).await;
        assert_eq!(stream.caught_up().await, (epoch.clone(), before));
        assert_eq!(stream.offsets(2).await, [before + 1, before + 2]);
    }
}

/// `CaughtUp` comes between them.
#[tokio::test]
async fn a_position_is_followed_by_kept_messages_then_live_ones() {
    let cluster = BroadcastCluster::start_two().await;
    let (epoch, _) = cluster.publish_range("lobby", 1, 5).await;

    for offset in 0..=5 {
        let mut stream = cluster.client(1).subscribe(after("lobby", &epoch, offset)).await;
        let count = usize::try_from(5 - offset).unwrap();
        assert_eq!(stream.offsets(count).await, (offset + 1..=5).collect::<Vec<_>>());
        assert_eq!(stream.caught_up().await, (epoch.clone(), 5));
    }
    let mut stream = cluster.subscribe(after("lobby", &epoch, 4)).await;
    assert_eq!(stream.offsets(1).await, [5]);
    stream.caught_up().await;
    cluster.publish_text("lobby", "6").await;
    assert_eq!(stream.text().await, "6");
}

#[tokio::test]
async fn a_stream_resumes_from_the_position_of_a_caught_up() {
    let cluster = BroadcastCluster::start_two().await;
    let unused = cluster.listen("hall").await;
    drop(unused);
    let (epoch, head) = cluster.subscribe(latest("hall")).await.caught_up().await;
    assert_eq!((epoch.as_str(), head), ("", 0));
    cluster.publish_range("hall", 1, 3).await;
    let mut stream = cluster.client(1).subscribe(after("hall", &epoch, head)).await;
    assert_eq!(stream.offsets(3).await, [1, 2, 3]);

    let (epoch, head) = cluster.subscribe(latest("hall")).await.caught_up().await;
    cluster.publish_range("hall", 4, 5).await;
    let mut stream = cluster.client(1).subscribe(after("hall", &epoch, head)).await;
    assert_eq!(stream.offsets(2).await, [4, 5]);
}

#[tokio::test]
async fn a_stream_of_an_unused_channel_starts_at_offset_1() {
    let cluster = BroadcastCluster::start().await;
    let mut stream = cluster.subscribe(from_beginning("lobby")).await;
    assert_eq!(stream.caught_up().await, (String::new(), 0));

    cluster.publish_range("lobby", 1, 3).await;

    assert_eq!(stream.offsets(3).await, [1, 2, 3]);
}

#[tokio::test]
async fn the_last_n_kept_messages_are_delivered_without_a_gap() {
    let cluster = BroadcastCluster::start_tuned(1, |config| config.channels.broadcast_history_count = 10).await;
    let (epoch, _) = cluster.publish_range("lobby", 1, 25).await;

    for (wanted, first) in [(1, 25), (3, 23), (10, 16), (11, 16), (1000, 16)] {
        let mut stream = cluster.subscribe(last("lobby", wanted)).await;
        let count = usize::try_from(26 - first).unwrap();
        assert_eq!(stream.offsets(count).await, (first..=25).collect::<Vec<_>>());
        assert_eq!(stream.caught_up().await, (epoch.clone(), 25));
    }
    let mut stream = cluster.subscribe(last("hall", 10)).await;
    assert_eq!(stream.caught_up().await, (String::new(), 0));
}

#[tokio::test]
async fn an_unknown_position_is_a_reset_to_the_oldest_message() {
    let cluster = BroadcastCluster::start_tuned(1, |config| config.channels.broadcast_history_count = 10).await;
    let (epoch, _) = cluster.publish_range("lobby", 1, 3).await;

    for (other, offset) in [("0123456789abcdef", 2), ("not ours", 0), (&epoch, 4), (&epoch, i64::MAX)] {
        let mut stream = cluster.subscribe(after("lobby", other, offset)).await;
        assert_eq!(stream.reset().await, (epoch.clone(), 3));
        assert_eq!(stream.offsets(3).await, [1, 2, 3]);
        assert_eq!(stream.caught_up().await, (epoch.clone(), 3));
    }
    cluster.publish_range("lobby", 4, 25).await;
    let mut stream = cluster.subscribe(after("lobby", "not ours", 2)).await;
    assert_eq!(stream.reset().await, (epoch.clone(), 25));
    assert_eq!(stream.gap().await, (epoch.clone(), 1, 15));
    assert_eq!(stream.offsets(10).await, (16..=25).collect::<Vec<_>>());
    assert_eq!(stream.caught_up().await, (epoch, 25));

    let mut stream = cluster.subscribe(after("hall", "0123456789abcdef", 2)).await;
    assert_eq!(stream.reset().await, (String::new(), 0));
    assert_eq!(stream.caught_up().await, (String::new(), 0));
    cluster.publish_text("hall", "first").await;
    assert_eq!(stream.text().await, "first");
}

#[tokio::test]
async fn each_of_256_channels_on_a_stream_gets_its_messages() {
    let cluster = BroadcastCluster::start_two().await;
    let name = |number: usize| format!("channel/{number}");
    let stream = cluster.client(1).try_subscribe((0..256).map(|number| latest(&name(number))).collect()).await.unwrap();
    let recorder = crate::support::recorder::Recorder::start(stream);

    for _ in 0..3 {
        let requests =
            (0..256).map(|number| crate::support::client::text_message(&name(number), &name(number))).collect();
        cluster.batch(requests).await.unwrap();
    }

    for number in 0..256 {
        let all = async || recorder.transcript(&name(number)).events.len() == 4;
        eventually("each channel has a CaughtUp and three messages", all).await;
        assert_eq!(recorder.transcript(&name(number)).position().1, 3);
    }
}

#[tokio::test]
async fn each_channel_of_a_stream_is_caught_up_once() {
    let cluster = BroadcastCluster::start().await;
    let (epoch, _) = cluster.publish_range("a", 1, 300).await;
    let channels = vec![from_beginning("a"), latest("b"), last("c", 5), after("d", &epoch, 7)];
    let recorder = crate::support::recorder::Recorder::start(cluster.try_subscribe(channels).await.unwrap());
    for channel in ["a", "b", "c", "d"] {
        cluster.publish_text(channel, "live").await;
    }

    for (channel, end) in [("a", 301), ("b", 1), ("c", 1), ("d", 1)] {
        eventually("the channel is live", async || recorder.transcript(channel).position().1 == end).await;
        let events = recorder.transcript(channel).events;
        let caught_up =
            events.iter().filter(|event| matches!(event, crate::support::ledger::ReceivedEvent::CaughtUp { .. }));
        assert_eq!(caught_up.count(), 1, "{events:?}");
    }
}
