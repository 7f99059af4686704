//! Notifications that pub/sub loses, delays, or delivers from a past epoch.

use std::time::Duration;

use redis::cmd;
use tidings_devstack::testing::{NEVER, eventually, own_redis};
use tokio::time::Instant;

use crate::support::BroadcastCluster;
use crate::support::client::{from_beginning, latest};
use crate::support::proxy::PubSubProxy;

#[tokio::test]
async fn the_next_comparison_finds_a_lost_notification() {
    let cluster = BroadcastCluster::start().await;
    let redis = cluster.redis().await;
    let mut stream = cluster.listen("lobby").await;
    let (epoch, _) = cluster.publish_range("lobby", 1, 3).await;
    assert_eq!(stream.offsets(3).await, [1, 2, 3]);

    let start = Instant::now();
    assert_eq!(redis.publish_without_notification("lobby", "lost").await, (epoch, 4));

    assert_eq!(stream.text().await, "lost");
    // The comparison runs every 5 s; the rest is for a busy machine.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test]
async fn the_next_message_finds_a_lost_notification() {
    let cluster = BroadcastCluster::start_tuned(1, |config| {
        config.streams.broadcast_compare_interval = NEVER.into();
    })
    .await;
    let redis = cluster.redis().await;
    let mut stream = cluster.listen("lobby").await;
    cluster.publish_range("lobby", 1, 3).await;
    for number in 4..7 {
        redis.publish_without_notification("lobby", &number.to_string()).await;
    }
    cluster.publish_range("lobby", 7, 9).await;

    assert_eq!(stream.offsets(9).await, (1..=9).collect::<Vec<_>>());
}

/// Messages that are no longer kept are reported in a `Gap`.
#[tokio::test]
async fn more_losses_than_a_ring_holds_are_found() {
    let cluster = BroadcastCluster::start_tuned(1, |config| {
        config.streams.broadcast_compare_interval = Duration::from_millis(300).into();
        config.streams.broadcast_ring_messages = 10;
    })
    .await;
    let redis = cluster.redis().await;
    let mut stream = cluster.listen("lobby").await;
    let (epoch, _) = cluster.publish_range("lobby", 1, 3).await;
    assert_eq!(stream.offsets(3).await, [1, 2, 3]);

    // In one step, so that no comparison runs in between.
    let silent = r"
        for offset = 4, 1200 do
            redis.call('XADD', KEYS[1], 'MAXLEN', '=', 1000, offset .. '-0', 't', ARGV[1], 'b', '')
        end
        redis.call('HSET', KEYS[2], 'head', 1200)";
    let time = redis.meta("lobby", "time").await.unwrap();
    let mut eval = cmd("EVAL");
    eval.arg(silent).arg(2).arg(redis.stream_key("lobby")).arg(redis.meta_key("lobby")).arg(time);
    redis.run::<()>(&eval).await;

    assert_eq!(stream.gap().await, (epoch.clone(), 4, 200));
    assert_eq!(stream.offsets(1000).await, (201..=1200).collect::<Vec<_>>());
    assert_eq!(cluster.publish_text("lobby", "live").await, (epoch, 1201));
    assert_eq!(stream.text().await, "live");
}

/// The connection stays open, but gets no more notifications.
#[tokio::test]
async fn a_dead_session_is_replaced_and_its_losses_are_delivered() {
    let server = own_redis().await;
    let proxy = PubSubProxy::to(server.port()).await;
    let cluster = BroadcastCluster::start_on(&server, 2, |index, config| {
        if index == 1 {
            config.redis.redis_url = proxy.url().parse().unwrap();
            config.streams.broadcast_compare_interval = NEVER.into(); // only a new session finds the loss
        }
    })
    .await;
    let mut stream = cluster.client(1).listen("lobby").await;
    cluster.publish_range("lobby", 1, 3).await;
    assert_eq!(stream.offsets(3).await, [1, 2, 3]);
    let sessions = proxy.subscribed_connections();

    proxy.mute_subscribers();
    cluster.publish_range("lobby", 4, 6).await;

    assert_eq!(stream.offsets(3).await, [4, 5, 6]);
    assert!(proxy.subscribed_connections() > sessions);
    cluster.publish_range("lobby", 7, 8).await;
    assert_eq!(stream.offsets(2).await, [7, 8]);
}

#[tokio::test]
async fn late_messages_of_a_past_epoch_do_not_restore_it() {
    let cluster = BroadcastCluster::start_tuned(1, |config| {
        config.streams.broadcast_compare_interval = Duration::from_millis(200).into();
    })
    .await;
    let redis = cluster.redis().await;
    let mut stream = cluster.listen("lobby").await;
    let (old, _) = cluster.publish_range("lobby", 1, 3).await;
    assert_eq!(stream.offsets(3).await, [1, 2, 3]);

    redis.delete_channel("lobby").await;
    let (new, _) = cluster.publish_range("lobby", 1, 2).await;
    assert_eq!(stream.reset().await.0, new);
    assert_eq!(stream.offsets(2).await, [1, 2]);
    for offset in [4, 5, 3, 1, 100] {
        redis.notify("lobby", &old, offset, "late").await;
    }
    cluster.publish_range("lobby", 3, 4).await;

    assert_eq!(stream.offsets(2).await, [3, 4]);
    stream.assert_silent(Duration::from_secs(1)).await;
    let mut later = cluster.subscribe(from_beginning("lobby")).await;
    assert_eq!(later.offsets(4).await, [1, 2, 3, 4]);
    assert_eq!(later.caught_up().await, (new, 4));
}

#[tokio::test]
async fn duplicates_and_malformed_notifications_are_ignored() {
    let cluster = BroadcastCluster::start().await;
    let redis = cluster.redis().await;
    let mut stream = cluster.listen("lobby").await;
    let (epoch, _) = cluster.publish_range("lobby", 1, 3).await;

    for offset in 1..=3 {
        redis.notify("lobby", &epoch, offset, "again").await;
    }
    redis.notify("lobby", &epoch, 9, "from the future").await;
    redis.run::<()>(cmd("PUBLISH").arg(redis.pubsub_channel("lobby")).arg("nonsense")).await;
    cluster.publish_range("lobby", 4, 5).await;

    let texts: Vec<_> = stream.messages(5).await.iter().map(crate::support::stream::text).collect();
    assert_eq!(texts, ["1", "2", "3", "4", "5"]);
    stream.assert_silent(Duration::from_millis(300)).await;
}

/// The first epoch after the loss needs no second `Reset`.
#[tokio::test]
async fn a_lost_channel_is_reset_once() {
    let cluster = BroadcastCluster::start_tuned(2, |config| {
        config.streams.broadcast_compare_interval = Duration::from_millis(200).into();
    })
    .await;
    let redis = cluster.redis().await;
    let mut streams = Vec::new();
    for index in [0, 1] {
        streams.push(cluster.client(index).listen("lobby").await);
    }
    for round in 0..5 {
        let (epoch, _) = cluster.publish_range("lobby", 1, 3).await;
        for stream in &mut streams {
            let messages = stream.messages(3).await;
            assert!(messages.iter().all(|message| message.epoch == epoch), "round {round}");
        }
        redis.delete_channel("lobby").await;
        for stream in &mut streams {
            assert_eq!(stream.reset().await, (String::new(), 0));
        }
        let late = cluster.subscribe(latest("lobby")).await.caught_up().await;
        assert_eq!(late, (String::new(), 0));
    }
}

#[tokio::test]
async fn an_epoch_that_ended_before_it_was_delivered_is_a_reset() {
    let cluster = BroadcastCluster::start_tuned(1, |config| {
        config.streams.broadcast_compare_interval = NEVER.into();
    })
    .await;
    let redis = cluster.redis().await;
    let mut stream = cluster.listen("lobby").await;

    redis.notify("lobby", "0123456789abcdef", 1, "received, then lost by redis").await;
    assert_eq!(stream.reset().await, (String::new(), 0));

    let (epoch, _) = cluster.publish_range("lobby", 1, 2).await;
    assert_eq!(stream.messages(2).await[0].epoch, epoch);
    eventually("the channel is readable", async || cluster.get("lobby").await.is_ok()).await;
}
