//! Malformed requests: the error names all malformed fields at once, and nothing is changed.

use std::collections::BTreeMap;

use tidings_proto::broadcast as pb;
use tidings_status::Failure;
use tonic::Code;

use crate::support::BroadcastCluster;
use crate::support::client::{after, last, latest, text_message};

fn fields(failure: &Failure) -> Vec<&str> {
    assert_eq!((failure.code, failure.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELDS"), "{failure}");
    failure.violations.iter().map(|violation| violation.field.as_str()).collect()
}

/// Makes a request with every field at its limit.
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
    let cluster = BroadcastCluster::start().await;
    let channel = largest().channel;
    let mut stream = cluster.listen(&channel).await;

    cluster.publish(largest()).await.unwrap();
    cluster.publish_text(&channel, "").await;

    let messages = stream.messages(2).await;
    assert_eq!((&messages[0].data, &messages[0].content_type), (&largest().data, &largest().content_type));
    assert_eq!(messages[0].attributes, largest().attributes);
    assert_eq!((messages[1].data.len(), messages[1].content_type.as_str(), messages[1].attributes.len()), (0, "", 0));
}

#[tokio::test]
async fn all_malformed_fields_of_a_message_are_named_at_once() {
    let cluster = BroadcastCluster::start().await;
    let mut request = largest();
    request.channel.push('c');
    request.data = vec![b'd'; 65_537].into();
    request.content_type.push('t');
    request.attributes.get_mut(&"k".repeat(64)).unwrap().push('v');
    request.request_id.push('r');
    request.trace_parent.push('f');
    let all = ["channel", "data", "content_type", "attributes", "request_id", "trace_parent"];

    assert_eq!(fields(&cluster.publish(request.clone()).await.unwrap_err()), all);
    let batch = cluster.batch(vec![text_message("lobby", "x"), request]).await.unwrap_err();
    assert_eq!(fields(&batch), all.map(|field| format!("requests[1].{field}")));
}

#[tokio::test]
async fn an_invalid_channel_name_is_refused() {
    let cluster = BroadcastCluster::start().await;
    for name in ["", "a b", "a//b", "/a", "a/", "{a}", "a:b", "é", "a*", &"x".repeat(201)] {
        assert_eq!(fields(&cluster.publish(text_message(name, "x")).await.unwrap_err()), ["channel"], "{name}");
        assert_eq!(fields(&cluster.get(name).await.unwrap_err()), ["name"], "{name}");
        let refused = cluster.try_subscribe(vec![latest("a"), latest(name)]).await.map(|_| ()).unwrap_err();
        assert_eq!(fields(&refused), ["channels[1].channel"], "{name}");
    }
    for kind in ["no space", "é", "a\n"] {
        let request = pb::PublishRequest { content_type: kind.to_owned(), ..text_message("a", "x") };
        assert_eq!(fields(&cluster.publish(request).await.unwrap_err()), ["content_type"]);
    }
}

#[tokio::test]
async fn a_batch_has_1_to_500_items_and_at_most_4_mib() {
    let cluster = BroadcastCluster::start().await;
    assert_eq!(fields(&cluster.batch(Vec::new()).await.unwrap_err()), ["requests"]);
    assert_eq!(fields(&cluster.batch(vec![text_message("a", "x"); 501]).await.unwrap_err()), ["requests"]);
    assert_eq!(cluster.batch(vec![text_message("a", "x"); 500]).await.unwrap().len(), 500);

    // Tag and length of channel and data take 7 bytes.
    let of_size = |bytes: usize| text_message("a", &"x".repeat(bytes - 7));
    let mut largest = vec![of_size(65_536); 64];
    assert_eq!(cluster.batch(largest.clone()).await.unwrap().len(), 64);
    largest[0] = of_size(65_537);
    assert_eq!(fields(&cluster.batch(largest).await.unwrap_err()), ["requests"]);
}

/// Each start position is validated, too.
#[tokio::test]
async fn a_stream_has_1_to_256_different_channels() {
    let cluster = BroadcastCluster::start().await;
    let refusal = async |channels| fields(&cluster.try_subscribe(channels).await.map(|_| ()).unwrap_err()).join(" ");
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
