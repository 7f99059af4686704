//! Limits of requests: a value at the limit is accepted, one above it is refused by its field.

use std::collections::BTreeMap;

use tidings_proto::history as pb;

use crate::support::HistoryCluster;
use crate::support::client::{CallResult, binary, newest, open, text};

/// Sets a field of a creation to its maximum length plus the given excess.
type FieldChange = fn(&mut pb::CreateConversationRequest, usize);

fn attributes(entries: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    entries.into_iter().collect()
}

/// Builds `count` attributes of `bytes` bytes together.
fn numbered(count: usize, bytes: usize) -> BTreeMap<String, String> {
    let each = bytes / count;
    let rest = bytes - each * (count - 1);
    attributes((0..count).map(|number| {
        let length = if number == 0 { rest } else { each };
        (format!("{number:02}"), "v".repeat(length - 2))
    }))
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: CallResult<T>, field: &str) {
    let failure = result.unwrap_err();
    let fields: Vec<_> = failure.violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, [field], "{failure}");
}

#[tokio::test]
async fn each_limit_of_a_message_is_legal_and_one_above_is_not() {
    let cluster = HistoryCluster::start().await;
    let longest = format!("{}._~-", "A0".repeat(30));
    cluster.create(&longest).await;
    let base = || text(&longest, &longest, &longest, "x");
    let keyed = |key: usize| text(&longest, "ada", &key.to_string(), "x");
    let body = |length: usize| Some(binary(vec![7; length], "image/png"));
    let typed = |length: usize| Some(binary(vec![7], &"t".repeat(length)));
    let texted = |length: usize| text("", "", "", &"x".repeat(length)).body;
    let legal = [
        base(),
        pb::AppendMessageRequest { body: texted(32 * 1024), ..keyed(1) },
        pb::AppendMessageRequest { body: body(32 * 1024), ..keyed(2) },
        pb::AppendMessageRequest { body: typed(128), ..keyed(3) },
        pb::AppendMessageRequest { body: typed(1), ..keyed(4) },
        pb::AppendMessageRequest { attributes: numbered(32, 4096), ..keyed(5) },
        pb::AppendMessageRequest { attributes: attributes([("n".repeat(64), String::new())]), ..keyed(6) },
    ];
    for request in legal {
        cluster.append(request).await.unwrap();
    }

    let long = format!("{longest}x");
    let illegal = [
        ("conversation_id", pb::AppendMessageRequest { conversation_id: long.clone(), ..base() }),
        ("sender_id", pb::AppendMessageRequest { sender_id: long.clone(), ..base() }),
        ("client_message_id", pb::AppendMessageRequest { client_message_id: long.clone(), ..base() }),
        ("body.text", pb::AppendMessageRequest { body: texted(32 * 1024 + 1), ..base() }),
        ("body.binary.data", pb::AppendMessageRequest { body: body(32 * 1024 + 1), ..base() }),
        ("body.binary.content_type", pb::AppendMessageRequest { body: typed(129), ..base() }),
        ("body.binary.content_type", pb::AppendMessageRequest { body: typed(0), ..base() }),
        ("attributes", pb::AppendMessageRequest { attributes: numbered(33, 4096), ..base() }),
        ("attributes", pb::AppendMessageRequest { attributes: numbered(32, 4097), ..base() }),
        (
            "attributes",
            pb::AppendMessageRequest { attributes: attributes([("n".repeat(65), String::new())]), ..base() },
        ),
        ("attributes", pb::AppendMessageRequest { attributes: attributes([(String::new(), String::new())]), ..base() }),
        ("reply_to_seq", pb::AppendMessageRequest { reply_to_seq: -1, ..base() }),
    ];
    for (field, request) in illegal {
        assert_refused(cluster.append(request).await, field);
    }
    assert_eq!(cluster.truth(&longest).await.len(), 7);
}

#[tokio::test]
async fn each_limit_of_a_conversation_is_legal_and_one_above_is_not() {
    let cluster = HistoryCluster::start().await;
    let request = |change: FieldChange, above: usize| {
        let mut request = open("");
        change(&mut request, above);
        request
    };
    let changes: [(&str, FieldChange); 5] = [
        ("request_id", |request, above| request.request_id = "r".repeat(64 + above)),
        ("conversation.id", |request, above| request.conversation.as_mut().unwrap().id = "c".repeat(64 + above)),
        ("conversation.title", |request, above| {
            request.conversation.as_mut().unwrap().title = format!("{}{}", "é".repeat(128), "x".repeat(above));
        }),
        ("conversation.attributes", |request, above| {
            request.conversation.as_mut().unwrap().attributes = numbered(32 + above, 4096);
        }),
        ("conversation.attributes", |request, above| {
            request.conversation.as_mut().unwrap().attributes = numbered(32, 4096 + above);
        }),
    ];
    for (field, change) in changes {
        cluster.create_as(request(change, 0)).await.unwrap();
        assert_refused(cluster.create_as(request(change, 1)).await, field);
    }
    assert_eq!(cluster.count("SELECT count(*) FROM conversation").await, 5);
}

#[tokio::test]
async fn each_limit_of_a_page_is_legal_and_one_above_is_not() {
    const BYTES_MAX: i32 = 3_670_016;
    let cluster = HistoryCluster::start().await;
    cluster.fill("lobby", 201).await;

    assert_eq!(cluster.newest("lobby", 0).await.messages.len(), 50);
    assert_eq!(cluster.newest("lobby", 1).await.messages.len(), 1);
    assert_eq!(cluster.newest("lobby", 200).await.messages.len(), 200);
    assert_refused(cluster.list(newest("lobby", 201)).await, "page_size");
    assert_refused(cluster.list(newest("lobby", -1)).await, "page_size");
    let bytes = |max_bytes| pb::ListMessagesRequest { max_bytes, ..newest("lobby", 200) };
    assert_eq!(cluster.list(bytes(1)).await.unwrap().messages.len(), 1);
    assert_eq!(cluster.list(bytes(BYTES_MAX)).await.unwrap().messages.len(), 200);
    assert_refused(cluster.list(bytes(BYTES_MAX + 1)).await, "max_bytes");
    assert_refused(cluster.list(bytes(-1)).await, "max_bytes");
    let of = |page_size, max_bytes| pb::ListUserMessagesRequest {
        user_id: "ada".to_owned(),
        page_size,
        max_bytes,
        ..Default::default()
    };
    assert_eq!(cluster.authored(of(0, 0)).await.unwrap().messages.len(), 50);
    assert_eq!(cluster.authored(of(200, BYTES_MAX)).await.unwrap().messages.len(), 200);
    assert_refused(cluster.authored(of(201, 0)).await, "page_size");
    assert_refused(cluster.authored(of(0, BYTES_MAX + 1)).await, "max_bytes");
}
