//! Publish and BatchPublish: results, deduplication and order.

use std::collections::BTreeMap;
use std::time::SystemTime;

use redis::cmd;
use tidings_devstack::testing::own_redis;
use tidings_proto::broadcast as pb;
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tonic::{Code, Request};

use crate::support::BroadcastCluster;
use crate::support::client::{Outcome, from_beginning, published, text_message, text_with_id};
use crate::support::stream::text;

/// Makes a request with all fields set.
fn full_message() -> pb::PublishRequest {
    pb::PublishRequest {
        channel: "orders/eu/42".to_owned(),
        data: (0..=255).collect::<Vec<u8>>().into(),
        content_type: "application/json".to_owned(),
        attributes: BTreeMap::from([("kind".to_owned(), "paid".to_owned()), ("who".to_owned(), "Zoë".to_owned())]),
        request_id: "r-1".to_owned(),
        trace_parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
    }
}

#[tokio::test]
async fn a_message_is_delivered_to_every_subscriber_unchanged() {
    let cluster = BroadcastCluster::start_two().await;
    let mut here = cluster.listen("orders/eu/42").await;
    let mut there = cluster.client(1).listen("orders/eu/42").await;
    let before = SystemTime::now();

    let response = cluster.publish(full_message()).await.unwrap();

    assert_eq!((response.offset, response.deduplicated), (1, false));
    let mut later = cluster.subscribe(from_beginning("orders/eu/42")).await;
    for stream in [&mut here, &mut there, &mut later] {
        let message = stream.messages(1).await.remove(0);
        let time = message.publish_time.unwrap();
        let expected = pb::Message {
            channel: "orders/eu/42".to_owned(),
            epoch: response.epoch.clone(),
            offset: 1,
            publish_time: Some(time),
            data: full_message().data,
            content_type: full_message().content_type,
            attributes: full_message().attributes,
            trace_parent: full_message().trace_parent,
        };
        assert_eq!(message, expected);
        let age = SystemTime::try_from(time).unwrap().duration_since(before).unwrap_or_default();
        assert!(age.as_secs() < 20, "redis has the same clock: {age:?}");
    }
}

/// A retry is answered with the first position and `deduplicated`.
#[tokio::test]
async fn one_request_id_and_content_is_one_message() {
    let cluster = BroadcastCluster::start_two().await;
    let mut stream = cluster.listen("lobby").await;
    let request = text_with_id("lobby", "hello", "r-1");

    let first = cluster.publish(request.clone()).await.unwrap();
    assert!(!first.deduplicated);
    for index in [0, 1] {
        let retry = cluster.client(index).publish(request.clone()).await.unwrap();
        assert_eq!(retry, pb::PublishResponse { deduplicated: true, ..first.clone() });
    }
    let other_id = cluster.publish(text_with_id("lobby", "hello", "r-2")).await.unwrap();
    let other_channel = cluster.publish(text_with_id("hall", "hello", "r-1")).await.unwrap();

    assert_eq!((other_id.offset, other_id.deduplicated), (2, false));
    assert_eq!((other_channel.offset, other_channel.deduplicated), (1, false));
    assert_eq!(stream.offsets(2).await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_concurrent_publishes_with_one_id_are_one_message() {
    let cluster = BroadcastCluster::start_two().await;
    let calls = (0..50).map(|number| {
        let client = cluster.client(number % 2);
        tokio::spawn(async move { client.publish(text_with_id("lobby", "hello", "r-1")).await.unwrap() })
    });
    let mut new = 0;
    for call in calls.collect::<Vec<_>>() {
        let response = call.await.unwrap();
        assert_eq!(response.offset, 1);
        new += usize::from(!response.deduplicated);
    }
    assert_eq!((new, cluster.get("lobby").await.unwrap().head), (1, 1));
}

/// The error has the position of the first message.
#[tokio::test]
async fn other_content_with_a_used_request_id_is_refused() {
    let cluster = BroadcastCluster::start().await;
    cluster.publish_text("orders/eu/42", "before").await;
    let first = cluster.publish(full_message()).await.unwrap();

    let mut others = vec![full_message(); 3];
    others[0].data = "other".into();
    others[1].content_type = "text/plain".to_owned();
    others[2].attributes.clear();
    for other in others {
        let failure = cluster.publish(other).await.unwrap_err();
        assert_eq!((failure.code, failure.reason.as_str()), (Code::AlreadyExists, "REQUEST_ID_REUSED"));
        assert_eq!((failure.metadata["epoch"].as_str(), failure.metadata["offset"].as_str()), (&*first.epoch, "2"));
    }
    assert_eq!(cluster.get("orders/eu/42").await.unwrap().head, 2);
}

#[tokio::test]
async fn a_request_id_expires_with_the_epoch_of_its_message() {
    let cluster = BroadcastCluster::start().await;
    let redis = cluster.redis().await;
    let first = cluster.publish(text_with_id("lobby", "hello", "r-1")).await.unwrap();

    redis.delete_channel("lobby").await;
    let between = cluster.publish_text("lobby", "new epoch").await;
    assert!(redis.run::<bool>(cmd("EXISTS").arg(redis.request_key("lobby", "r-1"))).await, "redis still has the key");
    let second = cluster.publish(text_with_id("lobby", "hello", "r-1")).await.unwrap();
    let third = cluster.publish(text_with_id("lobby", "hello", "r-1")).await.unwrap();

    assert_ne!(first.epoch, second.epoch);
    assert_eq!(second, pb::PublishResponse { epoch: between.0, offset: 2, deduplicated: false });
    assert_eq!(third, pb::PublishResponse { deduplicated: true, ..second });
}

/// No deduplication key is stored.
#[tokio::test]
async fn without_a_request_id_a_retry_is_a_second_message() {
    let cluster = BroadcastCluster::start().await;
    let redis = cluster.redis().await;

    let first = cluster.publish_text("lobby", "hello").await;
    let second = cluster.publish_text("lobby", "hello").await;

    assert_eq!((first.1, second), (1, (first.0, 2)));
    let remembered: Vec<String> = redis.run(cmd("KEYS").arg(redis.request_key("lobby", "*"))).await;
    assert!(remembered.is_empty(), "{remembered:?}");
}

#[tokio::test]
async fn all_keys_in_redis_expire() {
    let cluster = BroadcastCluster::start().await;
    let redis = cluster.redis().await;
    cluster.publish(text_with_id("lobby", "hello", "r-1")).await.unwrap();

    let minutes = 60_000;
    let ttls = [
        (redis.meta_key("lobby"), 30 * 24 * 60 * minutes),
        (redis.stream_key("lobby"), 60 * minutes),
        (redis.request_key("lobby", "r-1"), 10 * minutes),
    ];
    for (key, ttl) in ttls {
        let left: i64 = redis.run(cmd("PTTL").arg(&key)).await;
        assert!((ttl - minutes..=ttl).contains(&left), "{key}: {left} of {ttl} ms");
    }
}

#[tokio::test]
async fn publish_time_never_decreases_when_the_clock_does() {
    let cluster = BroadcastCluster::start().await;
    let redis = cluster.redis().await;
    let mut stream = cluster.listen("lobby").await;
    cluster.publish_text("lobby", "one").await;

    let in_an_hour: i64 = redis.meta("lobby", "time").await.unwrap().parse::<i64>().unwrap() + 3_600_000_000;
    redis.run::<()>(cmd("HSET").arg(redis.meta_key("lobby")).arg("time").arg(in_an_hour)).await;
    cluster.publish_range("lobby", 2, 3).await;

    let times: Vec<_> = stream.messages(3).await.iter().map(|message| message.publish_time.unwrap()).collect();
    let micros: Vec<_> = times.iter().map(|time| time.seconds * 1_000_000 + i64::from(time.nanos) / 1000).collect();
    assert!(micros[0] < in_an_hour);
    assert_eq!(micros[1..], [in_an_hour, in_an_hour]);
    assert_eq!(cluster.get("lobby").await.unwrap().publish_time, Some(times[2]));
}

#[tokio::test]
async fn messages_of_a_batch_are_published_in_request_order() {
    let cluster = BroadcastCluster::start_two().await;
    let channels: Vec<_> = (0..5).map(|number| format!("channel/{number}")).collect();
    let mut streams = Vec::new();
    for channel in &channels {
        streams.push(cluster.client(1).listen(channel).await);
    }

    let requests = (0..500).map(|number| text_message(&channels[number % 5], &(number / 5 + 1).to_string())).collect();
    let outcomes = cluster.batch(requests).await.unwrap();

    assert_eq!(outcomes.len(), 500);
    for (number, outcome) in outcomes.iter().enumerate() {
        assert_eq!(published(outcome).1, i64::try_from(number / 5).unwrap() + 1);
    }
    for stream in &mut streams {
        for message in stream.messages(100).await {
            assert_eq!(text(&message), message.offset.to_string());
        }
    }
}

#[tokio::test]
async fn a_refused_item_does_not_affect_the_others() {
    let cluster = BroadcastCluster::start().await;
    let first = cluster.publish(text_with_id("lobby", "one", "r-1")).await.unwrap();

    let requests = vec![
        text_with_id("lobby", "two", "r-2"),
        text_with_id("lobby", "other", "r-1"),
        text_with_id("lobby", "two", "r-2"),
        text_message("lobby", "three"),
    ];
    let outcomes = cluster.batch(requests).await.unwrap();

    assert_eq!([&outcomes[0], &outcomes[2], &outcomes[3]].map(|outcome| published(outcome).1), [2, 2, 3]);
    assert!(matches!(&outcomes[2], Outcome::Published(published) if published.deduplicated));
    let Outcome::Failure(failure) = &outcomes[1] else { panic!("{:?}", outcomes[1]) };
    assert_eq!(failure.reason(), pb::ErrorReason::RequestIdReused);
    assert_eq!((&failure.epoch, failure.offset), (&first.epoch, 1));
    assert!(failure.message.contains("used for other content"), "{}", failure.message);
}

#[tokio::test]
async fn a_malformed_item_refuses_the_whole_batch() {
    let cluster = BroadcastCluster::start().await;

    let failure =
        cluster.batch(vec![text_message("lobby", "one"), text_message("no spaces", "two")]).await.unwrap_err();

    assert_eq!((failure.code, failure.violations[0].field.as_str()), (Code::InvalidArgument, "requests[1].channel"));
    assert_eq!(cluster.get("lobby").await.unwrap().head, 0);
}

#[tokio::test]
async fn a_batch_is_published_once_after_a_script_flush() {
    let server = own_redis().await;
    let cluster = BroadcastCluster::start_on(&server, 1, |_, _| {}).await;
    for round in 1..=3 {
        cluster.redis().await.run::<()>(cmd("SCRIPT").arg("FLUSH")).await;
        assert_eq!(cluster.publish_range("lobby", 1, 500).await.1, 500 * round);
    }
}

/// The message of Redis is not sent to the client.
#[tokio::test]
async fn a_command_refused_by_redis_is_internal() {
    let cluster = BroadcastCluster::start().await;
    let redis = cluster.redis().await;
    redis.run::<()>(cmd("SET").arg(redis.meta_key("lobby")).arg("not ours")).await;

    let failures = [
        cluster.publish(text_message("lobby", "x")).await.unwrap_err(),
        cluster.batch(vec![text_message("hall", "x"), text_message("lobby", "x")]).await.unwrap_err(),
        cluster.get("lobby").await.unwrap_err(),
        cluster.try_subscribe(vec![from_beginning("lobby")]).await.map(|_| ()).unwrap_err(),
    ];

    for failure in failures {
        assert_eq!((failure.code, failure.reason.as_str()), (Code::Internal, "INTERNAL"));
        assert_eq!(failure.message, "internal error");
    }
}

#[tokio::test]
async fn a_retry_in_another_trace_is_the_same_message() {
    let cluster = BroadcastCluster::start().await;
    let mut stream = cluster.listen("orders/eu/42").await;
    let first = cluster.publish(full_message()).await.unwrap();

    let again =
        pb::PublishRequest { trace_parent: full_message().trace_parent.replace("-b7", "-c8"), ..full_message() };
    let again = cluster.publish(again).await.unwrap();
    let outside = cluster.publish(pb::PublishRequest { trace_parent: String::new(), ..full_message() }).await.unwrap();

    assert_eq!((again.offset, again.deduplicated), (first.offset, true));
    assert_eq!((outside.offset, outside.deduplicated), (first.offset, true));
    assert_eq!(
        stream.messages(1).await[0].trace_parent,
        full_message().trace_parent,
        "the first publish determines the trace"
    );
}

#[tokio::test]
async fn a_message_without_a_trace_gets_that_of_its_call() {
    let cluster = BroadcastCluster::start().await;
    let mut stream = cluster.listen("lobby").await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let mut client = BroadcastServiceClient::new(cluster.client(0).channel);
    let mut publish = async |header: &str, requests: Vec<pb::PublishRequest>| {
        let mut request = Request::new(pb::BatchPublishRequest { requests });
        request.metadata_mut().insert("traceparent", header.parse().unwrap());
        client.batch_publish(request).await.unwrap();
    };

    let own = pb::PublishRequest { channel: "lobby".to_owned(), ..full_message() };
    publish(parent, vec![text_message("lobby", "of the call"), own]).await;
    publish("nonsense", vec![text_message("lobby", "of no trace")]).await;

    let parents: Vec<String> = stream.messages(3).await.into_iter().map(|message| message.trace_parent).collect();
    assert_eq!(parents, [parent.to_owned(), full_message().trace_parent, String::new()]);
}
