//! Requests that are refused: every malformed field is named at once, and nothing is done.

use std::collections::BTreeMap;

use tidings_proto::broadcast as pb;
use tidings_status::Failure;
use tonic::Code;

use crate::support::Broadcasts;
use crate::support::client::{after, last, latest, saying};

fn fields(failure: &Failure) -> Vec<&str> {
    assert_eq!((failure.code, failure.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELDS"), "{failure}");
    failure.violations.iter().map(|violation| violation.field.as_str()).collect()
}

/// Every field at its limit.
fn largest() -> pb::PublishRequest {
    let mut attributes: BTreeMap<_, _> = (0..31).map(|n| (format!("{n:064}"), "v".repeat(64))).collect();
    attributes.insert("k".repeat(64), "v".repeat(4096 - 31 * 128 - 64));
    pb::PublishRequest {
        channel: format!("Az09._~-/{}", "c".repeat(191)),
        data: vec![b'd'; 65_536].into(),
        content_type: "t".repeat(128),
        attributes,
        request_id: format!("Az09._~-{}", "r".repeat(56)),
        trace_parent: format!("00-{}-{}-ff", "f".repeat(32), "f".repeat(16)),
    }
}

#[tokio::test]
async fn every_field_at_its_limit_is_published_and_delivered() {
    let broadcasts = Broadcasts::start().await;
    let channel = largest().channel;
    let mut ear = broadcasts.listen(&channel).await;

    broadcasts.publish(largest()).await.unwrap();
    broadcasts.say(&channel, "").await;

    let messages = ear.messages(2).await;
    assert_eq!((&messages[0].data, &messages[0].content_type), (&largest().data, &largest().content_type));
    assert_eq!(messages[0].attributes, largest().attributes);
    assert_eq!((messages[1].data.len(), messages[1].content_type.as_str(), messages[1].attributes.len()), (0, "", 0));
}

#[tokio::test]
async fn all_malformed_fields_of_a_message_are_named_at_once() {
    let broadcasts = Broadcasts::start().await;
    let mut request = largest();
    request.channel.push('c');
    request.data = vec![b'd'; 65_537].into();
    request.content_type.push('t');
    request.attributes.get_mut(&"k".repeat(64)).unwrap().push('v');
    request.request_id.push('r');
    request.trace_parent.push('f');
    let all = ["channel", "data", "content_type", "attributes", "request_id", "trace_parent"];

    assert_eq!(fields(&broadcasts.publish(request.clone()).await.unwrap_err()), all);
    let batch = broadcasts.batch(vec![saying("lobby", "x"), request]).await.unwrap_err();
    assert_eq!(fields(&batch), all.map(|field| format!("requests[1].{field}")));
}

#[tokio::test]
async fn what_is_no_channel_name_is_refused() {
    let broadcasts = Broadcasts::start().await;
    for name in ["", "a b", "a//b", "/a", "a/", "{a}", "a:b", "é", "a*", &"x".repeat(201)] {
        assert_eq!(fields(&broadcasts.publish(saying(name, "x")).await.unwrap_err()), ["channel"], "{name}");
        assert_eq!(fields(&broadcasts.get(name).await.unwrap_err()), ["name"], "{name}");
        let refused = broadcasts.try_subscribe(vec![latest("a"), latest(name)]).await.map(|_| ()).unwrap_err();
        assert_eq!(fields(&refused), ["channels[1].channel"], "{name}");
    }
    for kind in ["no space", "é", "a\n"] {
        let request = pb::PublishRequest { content_type: kind.to_owned(), ..saying("a", "x") };
        assert_eq!(fields(&broadcasts.publish(request).await.unwrap_err()), ["content_type"]);
    }
}

#[tokio::test]
async fn a_batch_has_1_to_500_items_and_at_most_4_mib() {
    let broadcasts = Broadcasts::start().await;
    assert_eq!(fields(&broadcasts.batch(Vec::new()).await.unwrap_err()), ["requests"]);
    assert_eq!(fields(&broadcasts.batch(vec![saying("a", "x"); 501]).await.unwrap_err()), ["requests"]);
    assert_eq!(broadcasts.batch(vec![saying("a", "x"); 500]).await.unwrap().len(), 500);

    // Length and tag of channel and data are 7 bytes.
    let of_size = |bytes: usize| saying("a", &"x".repeat(bytes - 7));
    let mut largest = vec![of_size(65_536); 64];
    assert_eq!(broadcasts.batch(largest.clone()).await.unwrap().len(), 64);
    largest[0] = of_size(65_537);
    assert_eq!(fields(&broadcasts.batch(largest).await.unwrap_err()), ["requests"]);
}

#[tokio::test]
async fn a_stream_has_1_to_256_channels_each_once_and_each_start_is_checked() {
    let broadcasts = Broadcasts::start().await;
    let refusal = async |channels| fields(&broadcasts.try_subscribe(channels).await.map(|_| ()).unwrap_err()).join(" ");
    let many = |count: usize| (0..count).map(|number| latest(&number.to_string())).collect::<Vec<_>>();

    assert_eq!(refusal(Vec::new()).await, "channels");
    assert_eq!(refusal(many(257)).await, "channels");
    assert_eq!(refusal(vec![latest("a"), latest("b"), last("a", 1)]).await, "channels[2].channel");
    let malformed = vec![
        last("a", 0),
        last("b", 1001),
        last("c", -1),
        after("d", "", 1),
        after("e", "0123456789abcdef", -1),
        after("f", "", -1),
    ];
    let all =
        "channels[0].last channels[1].last channels[2].last channels[3,5].position.offset channels[4].position.offset";
    assert_eq!(refusal(malformed).await, all);
}
