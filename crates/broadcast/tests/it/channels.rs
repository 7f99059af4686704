//! GetChannel: where a channel stands.

use crate::support::client::latest;
use crate::support::{Broadcasts, eventually};

#[tokio::test]
async fn a_channel_that_never_was_has_no_epoch_and_no_messages() {
    let broadcasts = Broadcasts::start().await;

    let channel = broadcasts.get("orders/eu/42").await.unwrap();

    assert_eq!((channel.name.as_str(), channel.epoch.as_str()), ("orders/eu/42", ""));
    assert_eq!((channel.head, channel.oldest, channel.publish_time, channel.instance_subscribers), (0, 1, None, 0));
}

#[tokio::test]
async fn a_channel_says_its_epoch_its_head_its_oldest_and_when_the_newest_was_published() {
    let broadcasts = Broadcasts::start_tuned(1, |config| config.channels.broadcast_history_count = 10).await;
    let mut ear = broadcasts.listen("lobby").await;
    let (epoch, head) = broadcasts.count("lobby", 1, 12).await;

    let channel = broadcasts.get("lobby").await.unwrap();

    assert_eq!((channel.epoch, channel.head, channel.oldest), (epoch, head, 3));
    assert_eq!(channel.publish_time, ear.messages(12).await[11].publish_time);
}

#[tokio::test]
async fn a_channel_of_which_nothing_is_kept_any_more_goes_on_counting() {
    let broadcasts = Broadcasts::start().await;
    let (epoch, _) = broadcasts.count("lobby", 1, 3).await;
    let redis = broadcasts.redis().await;
    redis.run::<()>(redis::cmd("DEL").arg(redis.stream_key("lobby"))).await;

    let channel = broadcasts.get("lobby").await.unwrap();
    assert_eq!((&channel.epoch, channel.head, channel.oldest), (&epoch, 3, 4));
    assert_eq!(broadcasts.say("lobby", "4").await, (epoch, 4));
}

#[tokio::test]
async fn a_channel_counts_the_streams_of_the_instance_that_answers() {
    let broadcasts = Broadcasts::start_two().await;
    let subscribers = async |place: usize| broadcasts.client(place).get("lobby").await.unwrap().instance_subscribers;
    let first = broadcasts.listen("lobby").await;
    let second = broadcasts.subscribe(latest("lobby")).await;
    let _other = broadcasts.listen("hall").await;

    assert_eq!((subscribers(0).await, subscribers(1).await), (2, 0));
    drop(first);
    eventually("one is gone", async || subscribers(0).await == 1).await;
    drop(second);
    eventually("both are gone", async || subscribers(0).await == 0).await;
}
