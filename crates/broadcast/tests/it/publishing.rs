//! Publish and BatchPublish: what an answer means, and what a repeat does.

use std::collections::BTreeMap;
use std::time::SystemTime;

use redis::cmd;
use tidings_proto::broadcast as pb;
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tonic::{Code, Request};

use crate::support::client::{Outcome, everything, keyed, published, saying};
use crate::support::ear::text;
use crate::support::{Broadcasts, own_stack};

/// One that says everything there is to say.
fn telling() -> pb::PublishRequest {
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
async fn what_is_published_is_delivered_to_every_subscriber_with_all_it_says() {
    let broadcasts = Broadcasts::start_two().await;
    let mut here = broadcasts.listen("orders/eu/42").await;
    let mut there = broadcasts.client(1).listen("orders/eu/42").await;
    let before = SystemTime::now();

    let answer = broadcasts.publish(telling()).await.unwrap();

    assert_eq!((answer.offset, answer.deduplicated), (1, false));
    let mut later = broadcasts.subscribe(everything("orders/eu/42")).await;
    for ear in [&mut here, &mut there, &mut later] {
        let message = ear.messages(1).await.remove(0);
        let time = message.publish_time.unwrap();
        let expected = pb::Message {
            channel: "orders/eu/42".to_owned(),
            epoch: answer.epoch.clone(),
            offset: 1,
            publish_time: Some(time),
            data: telling().data,
            content_type: telling().content_type,
            attributes: telling().attributes,
            trace_parent: telling().trace_parent,
        };
        assert_eq!(message, expected);
        let age = SystemTime::try_from(time).unwrap().duration_since(before).unwrap_or_default();
        assert!(age.as_secs() < 20, "by the clock of redis, which is ours: {age:?}");
    }
}

#[tokio::test]
async fn the_same_content_under_the_same_request_id_is_one_message_and_says_so() {
    let broadcasts = Broadcasts::start_two().await;
    let mut ear = broadcasts.listen("lobby").await;
    let request = keyed("lobby", "hello", "r-1");

    let first = broadcasts.publish(request.clone()).await.unwrap();
    assert!(!first.deduplicated);
    for place in [0, 1] {
        let repeat = broadcasts.client(place).publish(request.clone()).await.unwrap();
        assert_eq!(repeat, pb::PublishResponse { deduplicated: true, ..first.clone() });
    }
    let other_id = broadcasts.publish(keyed("lobby", "hello", "r-2")).await.unwrap();
    let other_channel = broadcasts.publish(keyed("hall", "hello", "r-1")).await.unwrap();

    assert_eq!((other_id.offset, other_id.deduplicated), (2, false));
    assert_eq!((other_channel.offset, other_channel.deduplicated), (1, false));
    assert_eq!(ear.offsets(2).await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_publishes_at_once_under_one_request_id_are_one_message() {
    let broadcasts = Broadcasts::start_two().await;
    let calls = (0..50).map(|number| {
        let client = broadcasts.client(number % 2);
        tokio::spawn(async move { client.publish(keyed("lobby", "hello", "r-1")).await.unwrap() })
    });
    let mut new = 0;
    for call in calls.collect::<Vec<_>>() {
        let answer = call.await.unwrap();
        assert_eq!(answer.offset, 1);
        new += usize::from(!answer.deduplicated);
    }
    assert_eq!((new, broadcasts.get("lobby").await.unwrap().head), (1, 1));
}

#[tokio::test]
async fn another_content_under_a_request_id_is_refused_with_the_position_of_the_first() {
    let broadcasts = Broadcasts::start().await;
    broadcasts.say("orders/eu/42", "before").await;
    let first = broadcasts.publish(telling()).await.unwrap();

    let mut others = vec![telling(); 3];
    others[0].data = "other".into();
    others[1].content_type = "text/plain".to_owned();
    others[2].attributes.clear();
    for other in others {
        let failure = broadcasts.publish(other).await.unwrap_err();
        assert_eq!((failure.code, failure.reason.as_str()), (Code::AlreadyExists, "REQUEST_ID_REUSED"));
        assert_eq!((failure.metadata["epoch"].as_str(), failure.metadata["offset"].as_str()), (&*first.epoch, "2"));
    }
    assert_eq!(broadcasts.get("orders/eu/42").await.unwrap().head, 2);
}

#[tokio::test]
async fn a_request_id_is_forgotten_with_the_epoch_of_its_message() {
    let broadcasts = Broadcasts::start().await;
    let redis = broadcasts.redis().await;
    let first = broadcasts.publish(keyed("lobby", "hello", "r-1")).await.unwrap();

    redis.forget("lobby").await;
    let between = broadcasts.say("lobby", "of another epoch").await;
    assert!(redis.run::<bool>(cmd("EXISTS").arg(redis.request_key("lobby", "r-1"))).await, "redis still has it");
    let second = broadcasts.publish(keyed("lobby", "hello", "r-1")).await.unwrap();
    let third = broadcasts.publish(keyed("lobby", "hello", "r-1")).await.unwrap();

    assert_ne!(first.epoch, second.epoch);
    assert_eq!(second, pb::PublishResponse { epoch: between.0, offset: 2, deduplicated: false });
    assert_eq!(third, pb::PublishResponse { deduplicated: true, ..second });
}

#[tokio::test]
async fn without_a_request_id_a_repeat_is_a_second_message_and_nothing_is_remembered() {
    let broadcasts = Broadcasts::start().await;
    let redis = broadcasts.redis().await;

    let first = broadcasts.say("lobby", "hello").await;
    let second = broadcasts.say("lobby", "hello").await;

    assert_eq!((first.1, second), (1, (first.0, 2)));
    let remembered: Vec<String> = redis.run(cmd("KEYS").arg(redis.request_key("lobby", "*"))).await;
    assert!(remembered.is_empty(), "{remembered:?}");
}

#[tokio::test]
async fn what_redis_keeps_expires() {
    let broadcasts = Broadcasts::start().await;
    let redis = broadcasts.redis().await;
    broadcasts.publish(keyed("lobby", "hello", "r-1")).await.unwrap();

    let minutes = 60_000;
    let lives = [
        (redis.meta_key("lobby"), 30 * 24 * 60 * minutes),
        (redis.stream_key("lobby"), 60 * minutes),
        (redis.request_key("lobby", "r-1"), 10 * minutes),
    ];
    for (key, life) in lives {
        let left: i64 = redis.run(cmd("PTTL").arg(&key)).await;
        assert!((life - minutes..=life).contains(&left), "{key}: {left} of {life} ms");
    }
}

#[tokio::test]
async fn publish_time_never_goes_back_though_the_clock_does() {
    let broadcasts = Broadcasts::start().await;
    let redis = broadcasts.redis().await;
    let mut ear = broadcasts.listen("lobby").await;
    broadcasts.say("lobby", "one").await;

    let in_an_hour: i64 = redis.meta("lobby", "time").await.unwrap().parse::<i64>().unwrap() + 3_600_000_000;
    redis.run::<()>(cmd("HSET").arg(redis.meta_key("lobby")).arg("time").arg(in_an_hour)).await;
    broadcasts.count("lobby", 2, 3).await;

    let times: Vec<_> = ear.messages(3).await.iter().map(|message| message.publish_time.unwrap()).collect();
    let micros: Vec<_> = times.iter().map(|time| time.seconds * 1_000_000 + i64::from(time.nanos) / 1000).collect();
    assert!(micros[0] < in_an_hour);
    assert_eq!(micros[1..], [in_an_hour, in_an_hour]);
    assert_eq!(broadcasts.get("lobby").await.unwrap().publish_time, Some(times[2]));
}

#[tokio::test]
async fn messages_of_a_batch_are_published_in_the_order_of_the_request() {
    let broadcasts = Broadcasts::start_two().await;
    let channels: Vec<_> = (0..5).map(|number| format!("channel/{number}")).collect();
    let mut ears = Vec::new();
    for channel in &channels {
        ears.push(broadcasts.client(1).listen(channel).await);
    }

    let requests = (0..500).map(|number| saying(&channels[number % 5], &(number / 5 + 1).to_string())).collect();
    let outcomes = broadcasts.batch(requests).await.unwrap();

    assert_eq!(outcomes.len(), 500);
    for (number, outcome) in outcomes.iter().enumerate() {
        assert_eq!(published(outcome).1, i64::try_from(number / 5).unwrap() + 1);
    }
    for ear in &mut ears {
        for message in ear.messages(100).await {
            assert_eq!(text(&message), message.offset.to_string());
        }
    }
}

#[tokio::test]
async fn an_item_that_is_refused_does_not_hold_up_the_others() {
    let broadcasts = Broadcasts::start().await;
    let first = broadcasts.publish(keyed("lobby", "one", "r-1")).await.unwrap();

    let requests = vec![
        keyed("lobby", "two", "r-2"),
        keyed("lobby", "other", "r-1"),
        keyed("lobby", "two", "r-2"),
        saying("lobby", "three"),
    ];
    let outcomes = broadcasts.batch(requests).await.unwrap();

    assert_eq!([&outcomes[0], &outcomes[2], &outcomes[3]].map(|outcome| published(outcome).1), [2, 2, 3]);
    assert!(matches!(&outcomes[2], Outcome::Published(published) if published.deduplicated));
    let Outcome::Failure(failure) = &outcomes[1] else { panic!("{:?}", outcomes[1]) };
    assert_eq!(failure.reason(), pb::ErrorReason::RequestIdReused);
    assert_eq!((&failure.epoch, failure.offset), (&first.epoch, 1));
    assert!(failure.message.contains("used for another content"), "{}", failure.message);
}

#[tokio::test]
async fn a_malformed_item_refuses_the_whole_batch() {
    let broadcasts = Broadcasts::start().await;

    let failure = broadcasts.batch(vec![saying("lobby", "one"), saying("no spaces", "two")]).await.unwrap_err();

    assert_eq!((failure.code, failure.violations[0].field.as_str()), (Code::InvalidArgument, "requests[1].channel"));
    assert_eq!(broadcasts.get("lobby").await.unwrap().head, 0);
}

#[tokio::test]
async fn a_batch_is_published_once_though_redis_forgot_the_script() {
    let stack = own_stack().await;
    let broadcasts = Broadcasts::start_on(&stack, 1, |_, _| {}).await;
    for round in 1..=3 {
        broadcasts.redis().await.run::<()>(cmd("SCRIPT").arg("FLUSH")).await;
        assert_eq!(broadcasts.count("lobby", 1, 500).await.1, 500 * round);
    }
}

#[tokio::test]
async fn what_redis_refuses_is_internal_and_its_words_are_not_told() {
    let broadcasts = Broadcasts::start().await;
    let redis = broadcasts.redis().await;
    redis.run::<()>(cmd("SET").arg(redis.meta_key("lobby")).arg("not ours")).await;

    let failures = [
        broadcasts.publish(saying("lobby", "x")).await.unwrap_err(),
        broadcasts.batch(vec![saying("hall", "x"), saying("lobby", "x")]).await.unwrap_err(),
        broadcasts.get("lobby").await.unwrap_err(),
        broadcasts.try_subscribe(vec![everything("lobby")]).await.map(|_| ()).unwrap_err(),
    ];

    for failure in failures {
        assert_eq!((failure.code, failure.reason.as_str()), (Code::Internal, "INTERNAL"));
        assert_eq!(failure.message, "internal error");
    }
}

#[tokio::test]
async fn a_repeat_within_another_trace_is_the_same_message() {
    let broadcasts = Broadcasts::start().await;
    let mut ear = broadcasts.listen("orders/eu/42").await;
    let first = broadcasts.publish(telling()).await.unwrap();

    let again = pb::PublishRequest { trace_parent: telling().trace_parent.replace("-b7", "-c8"), ..telling() };
    let again = broadcasts.publish(again).await.unwrap();
    let outside = broadcasts.publish(pb::PublishRequest { trace_parent: String::new(), ..telling() }).await.unwrap();

    assert_eq!((again.offset, again.deduplicated), (first.offset, true));
    assert_eq!((outside.offset, outside.deduplicated), (first.offset, true));
    assert_eq!(ear.messages(1).await[0].trace_parent, telling().trace_parent, "that of the first time");
}

#[tokio::test]
async fn a_message_that_names_no_trace_is_in_that_of_its_call() {
    let broadcasts = Broadcasts::start().await;
    let mut ear = broadcasts.listen("lobby").await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let mut client = BroadcastServiceClient::new(broadcasts.client(0).channel);
    let mut publish = async |header: &str, requests: Vec<pb::PublishRequest>| {
        let mut request = Request::new(pb::BatchPublishRequest { requests });
        request.metadata_mut().insert("traceparent", header.parse().unwrap());
        client.batch_publish(request).await.unwrap();
    };

    let own = pb::PublishRequest { channel: "lobby".to_owned(), ..telling() };
    publish(parent, vec![saying("lobby", "of the call"), own]).await;
    publish("nonsense", vec![saying("lobby", "of no trace")]).await;

    let parents: Vec<String> = ear.messages(3).await.into_iter().map(|message| message.trace_parent).collect();
    assert_eq!(parents, [parent.to_owned(), telling().trace_parent, String::new()]);
}
