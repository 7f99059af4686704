//! The lifecycle of a stream: heartbeats, the end, and the limit of open streams.

use std::time::Duration;

use tidings_devstack::testing::eventually;
use tidings_proto::broadcast as pb;
use tidings_proto::broadcast::encoded::broadcast_service_client::BroadcastServiceClient as EncodedClient;
use tidings_proto::broadcast::encoded::subscribe_response::Frame as EncodedFrame;
use tidings_proto::broadcast::encoded::{ChannelStart, SubscribeRequest};
use tidings_proto::broadcast::goodbye::Reason;
use tidings_proto::broadcast::subscribe_response::Frame;
use tokio::time::Instant;
use tonic::Code;

use crate::support::BroadcastCluster;
use crate::support::client::{after, latest};

#[tokio::test]
async fn a_heartbeat_is_sent_on_an_idle_stream() {
    // So long that a busy machine does not cause a heartbeat.
    let heartbeat = Duration::from_secs(2);
    let cluster =
        BroadcastCluster::start_tuned(1, |config| config.streams.broadcast_heartbeat = heartbeat.into()).await;
    let mut stream = cluster.listen("lobby").await;

    let before = Instant::now();
    for number in 0..12 {
        cluster.publish_text("lobby", &number.to_string()).await;
        assert_eq!(stream.text().await, number.to_string(), "a message, and no heartbeat before it");
        tokio::time::sleep(heartbeat / 10).await;
    }
    assert!(before.elapsed() > heartbeat);
    let before = Instant::now();
    assert!(!stream.heartbeat().await, "the instance is connected");
    assert!(before.elapsed() > heartbeat / 2);
}

/// The client resumes at another instance.
#[tokio::test]
async fn on_shutdown_every_stream_gets_goodbye() {
    let mut cluster = BroadcastCluster::start_tuned(2, |_| ()).await;
    let client = cluster.client(0);
    let mut streams = Vec::new();
    for number in 0..20 {
        streams.push(client.listen(&format!("channel/{}", number % 3)).await);
    }
    let (epoch, _) = cluster.publish_range("channel/0", 1, 3).await;
    for stream in streams.iter_mut().step_by(3) {
        stream.messages(3).await;
    }

    cluster.shut_down(0);

    for stream in &mut streams {
        match stream.frame().await {
            Frame::Goodbye(goodbye) => {
                let seconds = goodbye.retry_after.unwrap().seconds;
                assert!((1..=5).contains(&seconds), "{seconds}");
                assert_eq!(goodbye.reason(), Reason::Shutdown);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(stream.next().await.unwrap(), None, "the stream ends without an error");
    }
    cluster.client(1).publish_range("channel/0", 4, 5).await;
    let mut elsewhere = cluster.client(1).subscribe(after("channel/0", &epoch, 3)).await;
    assert_eq!(elsewhere.offsets(2).await, [4, 5]);
    drop((client, streams));
    cluster.wait_until_ended(0).await;
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_until_one_ends() {
    let cluster = BroadcastCluster::start_tuned(1, |config| config.server.max_open_streams = 3).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(cluster.listen("lobby").await);
    }

    let refused = cluster.try_subscribe(vec![latest("lobby")]).await.map(|_| ()).unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(refused.retry_after.is_some());

    streams.pop();
    eventually("another stream is accepted", async || cluster.try_subscribe(vec![latest("lobby")]).await.is_ok()).await;
}

/// The channel stays subscribed for the linger time first.
#[tokio::test]
async fn a_channel_leaves_after_its_last_subscriber_and_rejoins() {
    let cluster = BroadcastCluster::start_tuned(1, |config| {
        config.streams.broadcast_linger = Duration::from_millis(300).into();
    })
    .await;
    let redis = cluster.redis().await;
    for round in 0..3 {
        let mut first = cluster.listen("lobby").await;
        let second = cluster.listen("lobby").await;
        drop(second);
        let (_, offset) = cluster.publish_text("lobby", &round.to_string()).await;
        assert_eq!(first.offsets(1).await, [offset]);
        assert_eq!(redis.subscribers("lobby").await, 1, "the channel has a subscriber");

        drop(first);
        eventually("the channel has left", async || redis.subscribers("lobby").await == 0).await;
        cluster.publish_text("lobby", "not received").await;
    }
}

#[tokio::test]
async fn the_bytes_on_the_wire_equal_a_plain_encoding() {
    use prost::Message as _;
    let cluster = BroadcastCluster::start().await;
    let channels = vec![ChannelStart { channel: "lobby".to_owned(), start: None }];
    let mut client = EncodedClient::new(cluster.client(0).channel);
    let mut frames = client.subscribe(SubscribeRequest { channels }).await.unwrap().into_inner();
    let mut plain = cluster.listen("lobby").await;

    let request = pb::PublishRequest {
        channel: "lobby".to_owned(),
        data: vec![0, 255, 10].into(),
        content_type: "text/plain".to_owned(),
        attributes: [("a".to_owned(), "b".to_owned()), ("c".to_owned(), String::new())].into(),
        request_id: "r-1".to_owned(),
        trace_parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
    };
    for request in [request, crate::support::client::text_message("lobby", "")] {
        cluster.publish(request).await.unwrap();
        let expected = plain.messages(1).await.remove(0);
        let sent = loop {
            if let Some(EncodedFrame::Messages(messages)) = frames.message().await.unwrap().unwrap().frame {
                break messages.messages;
            }
        };
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].len(), expected.encoded_len(), "no unknown fields");
        assert_eq!(pb::Message::decode(sent[0].clone()).unwrap(), expected);
    }
}
