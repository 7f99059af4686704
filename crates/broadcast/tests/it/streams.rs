//! The life of a stream: heartbeats, the end, and how many there may be.

use std::time::Duration;

use tidings_proto::broadcast as pb;
use tidings_proto::broadcast::encoded::broadcast_service_client::BroadcastServiceClient as EncodedClient;
use tidings_proto::broadcast::encoded::subscribe_response::Frame as EncodedFrame;
use tidings_proto::broadcast::encoded::{ChannelStart, SubscribeRequest};
use tidings_proto::broadcast::subscribe_response::Frame;
use tokio::time::Instant;
use tonic::Code;

use crate::support::client::{after, latest};
use crate::support::{Broadcasts, eventually};

#[tokio::test]
async fn a_heartbeat_comes_when_nothing_else_did() {
    // So long that a busy machine is not taken for silence.
    let beat = Duration::from_secs(2);
    let broadcasts = Broadcasts::start_tuned(1, |config| config.streams.broadcast_heartbeat = beat.into()).await;
    let mut ear = broadcasts.listen("lobby").await;

    let before = Instant::now();
    for number in 0..12 {
        broadcasts.say("lobby", &number.to_string()).await;
        assert_eq!(ear.text().await, number.to_string(), "a message, and no heartbeat before it");
        tokio::time::sleep(beat / 10).await;
    }
    assert!(before.elapsed() > beat);
    let before = Instant::now();
    assert!(!ear.heartbeat().await, "it hears");
    assert!(before.elapsed() > beat / 2);
}

#[tokio::test]
async fn on_shutdown_every_stream_hears_goodbye_at_a_moment_of_its_own_and_goes_on_elsewhere() {
    let mut broadcasts = Broadcasts::start_tuned(2, |_| ()).await;
    let client = broadcasts.client(0);
    let mut ears = Vec::new();
    for number in 0..20 {
        ears.push(client.listen(&format!("channel/{}", number % 3)).await);
    }
    let (epoch, _) = broadcasts.count("channel/0", 1, 3).await;
    for ear in ears.iter_mut().step_by(3) {
        ear.messages(3).await;
    }

    broadcasts.shut_down(0);

    for ear in &mut ears {
        match ear.frame().await {
            Frame::Goodbye(goodbye) => {
                let seconds = goodbye.retry_after.unwrap().seconds;
                assert!((1..=5).contains(&seconds), "{seconds}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(ear.next().await.unwrap(), None, "and ends well");
    }
    broadcasts.client(1).count("channel/0", 4, 5).await;
    let mut elsewhere = broadcasts.client(1).subscribe(after("channel/0", &epoch, 3)).await;
    assert_eq!(elsewhere.offsets(2).await, [4, 5]);
    drop((client, ears));
    broadcasts.ended(0).await;
}

#[tokio::test]
async fn more_streams_than_may_be_are_refused_until_one_ends() {
    let broadcasts = Broadcasts::start_tuned(1, |config| config.server.max_open_streams = 3).await;
    let mut ears = Vec::new();
    for _ in 0..3 {
        ears.push(broadcasts.listen("lobby").await);
    }

    let refused = broadcasts.try_subscribe(vec![latest("lobby")]).await.map(|_| ()).unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(refused.retry_after.is_some());

    ears.pop();
    eventually("there is room again", async || broadcasts.try_subscribe(vec![latest("lobby")]).await.is_ok()).await;
}

#[tokio::test]
async fn a_channel_is_heard_for_a_while_after_its_last_subscriber_and_anew_for_the_next() {
    let broadcasts = Broadcasts::start_tuned(1, |config| {
        config.streams.broadcast_linger = Duration::from_millis(300).into();
    })
    .await;
    let redis = broadcasts.redis().await;
    for round in 0..3 {
        let mut first = broadcasts.listen("lobby").await;
        let second = broadcasts.listen("lobby").await;
        drop(second);
        let (_, offset) = broadcasts.say("lobby", &round.to_string()).await;
        assert_eq!(first.offsets(1).await, [offset]);
        assert_eq!(redis.listeners("lobby").await, 1, "somebody wants it");

        drop(first);
        eventually("nobody does", async || redis.listeners("lobby").await == 0).await;
        broadcasts.say("lobby", "nobody hears that").await;
    }
}

#[tokio::test]
async fn the_bytes_on_the_wire_are_those_of_a_plain_encoding() {
    use prost::Message as _;
    let broadcasts = Broadcasts::start().await;
    let channels = vec![ChannelStart { channel: "lobby".to_owned(), start: None }];
    let mut raw = EncodedClient::new(broadcasts.client(0).channel);
    let mut frames = raw.subscribe(SubscribeRequest { channels }).await.unwrap().into_inner();
    let mut plain = broadcasts.listen("lobby").await;

    let request = pb::PublishRequest {
        channel: "lobby".to_owned(),
        data: vec![0, 255, 10].into(),
        content_type: "text/plain".to_owned(),
        attributes: [("a".to_owned(), "b".to_owned()), ("c".to_owned(), String::new())].into(),
        request_id: "r-1".to_owned(),
        trace_parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
    };
    for request in [request, crate::support::client::saying("lobby", "")] {
        broadcasts.publish(request).await.unwrap();
        let expected = plain.messages(1).await.remove(0);
        let sent = loop {
            if let Some(EncodedFrame::Messages(messages)) = frames.message().await.unwrap().unwrap().frame {
                break messages.messages;
            }
        };
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].len(), expected.encoded_len(), "nothing in it that a decoder would pass over");
        assert_eq!(pb::Message::decode(sent[0].clone()).unwrap(), expected);
    }
}
