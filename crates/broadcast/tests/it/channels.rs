//! GetChannel: the state of a channel.

use tidings_devstack::testing::eventually;

use crate::support::BroadcastCluster;
use crate::support::client::latest;

#[tokio::test]
async fn an_unused_channel_has_no_epoch_and_no_messages() {
    let cluster = BroadcastCluster::start().await;

    let channel = cluster.get("orders/eu/42").await.unwrap();

    assert_eq!((channel.name.as_str(), channel.epoch.as_str()), ("orders/eu/42", ""));
    assert_eq!((channel.head, channel.oldest, channel.publish_time, channel.instance_subscribers), (0, 1, None, 0));
}

#[tokio::test]
async fn a_channel_has_epoch_head_oldest_and_publish_time() {
    let cluster = BroadcastCluster::start_tuned(1, |config| config.channels.broadcast_history_count = 10).await;
    let mut stream = cluster.listen("lobby").await;
    let (epoch, head) = cluster.publish_range("lobby", 1, 12).await;

    let channel = cluster.get("lobby").await.unwrap();

    assert_eq!((channel.epoch, channel.head, channel.oldest), (epoch, head, 3));
    assert_eq!(channel.publish_time, stream.messages(12).await[11].publish_time);
}

#[tokio::test]
async fn a_channel_without_kept_messages_continues_its_offsets() {
    let cluster = BroadcastCluster::start().await;
    let (epoch, _) = cluster.publish_range("lobby", 1, 3).await;
    let redis = cluster.redis().await;
    redis.run::<()>(redis::cmd("DEL").arg(redis.stream_key("lobby"))).await;

    let channel = cluster.get("lobby").await.unwrap();
    assert_eq!((&channel.epoch, channel.head, channel.oldest), (&epoch, 3, 4));
    assert_eq!(cluster.publish_text("lobby", "4").await, (epoch, 4));
}

#[tokio::test]
async fn a_channel_counts_the_streams_of_the_replying_instance() {
    let cluster = BroadcastCluster::start_two().await;
    let subscribers = async |index: usize| cluster.client(index).get("lobby").await.unwrap().instance_subscribers;
    let first = cluster.listen("lobby").await;
    let second = cluster.subscribe(latest("lobby")).await;
    let _other = cluster.listen("hall").await;

    assert_eq!((subscribers(0).await, subscribers(1).await), (2, 0));
    drop(first);
    eventually("one has left", async || subscribers(0).await == 1).await;
    drop(second);
    eventually("both have left", async || subscribers(0).await == 0).await;
}
