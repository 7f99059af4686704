//! Malformed requests: all malformed fields are named at once, and nothing is stored.

use tidings_devstack::testing::PATIENCE;
use tidings_proto::history as pb;
use tidings_proto::history::list_user_messages_request::Scope;
use tidings_status::Failure;
use tonic::Code;

use crate::support::HistoryCluster;
use crate::support::client::{Anchor, CallResult, at, binary, newest, open, text};

/// An attribute with a NUL character, which is illegal.
fn nul() -> std::collections::BTreeMap<String, String> {
    [("name".to_owned(), "a\0b".to_owned())].into()
}

/// Returns the malformed fields that a failure names, in the order of the contract.
#[track_caller]
fn named<T: std::fmt::Debug>(result: CallResult<T>) -> Vec<String> {
    let failure: Failure = *result.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELDS"), "{failure}");
    assert_eq!(failure.domain, "history.tidings");
    let fields = failure.violations.iter().map(|violation| violation.field.clone()).collect();
    for violation in failure.violations {
        assert!(failure.message.contains(&violation.description), "{}", failure.message);
    }
    fields
}

async fn assert_empty(cluster: &HistoryCluster<'_>) {
    assert_eq!(cluster.count("SELECT (SELECT count(*) FROM message) + (SELECT count(*) FROM outbox)").await, 0);
}

/// Builds an append in which every field is malformed.
fn bad_append(body: Option<pb::Body>) -> pb::AppendMessageRequest {
    pb::AppendMessageRequest {
        conversation_id: "no spaces".to_owned(),
        sender_id: String::new(),
        client_message_id: "a/b".to_owned(),
        body,
        reply_to_seq: -1,
        attributes: nul(),
    }
}

#[tokio::test]
async fn every_malformed_field_of_a_creation_is_named() {
    let cluster = HistoryCluster::start().await;
    let conversation = pb::Conversation {
        id: "{lobby}".to_owned(),
        title: "a\0b".to_owned(),
        attributes: nul(),
        ..Default::default()
    };
    let request = pb::CreateConversationRequest { conversation: Some(conversation), request_id: "a b".to_owned() };

    let fields = named(cluster.create_as(request).await);
    assert_eq!(
        fields,
        ["request_id", "conversation.id", "conversation.kind", "conversation.title", "conversation.attributes"]
    );
    let fields = named(cluster.create_as(pb::CreateConversationRequest::default()).await);
    assert_eq!(fields[0], "conversation");
    assert_eq!(cluster.count("SELECT count(*) FROM conversation").await, 0);
}

#[tokio::test]
async fn every_malformed_field_of_an_append_is_named() {
    let cluster = HistoryCluster::start().await;
    cluster.create("lobby").await;
    let cases: [(Option<pb::Body>, &[&str]); 4] = [
        (None, &["body"]),
        (Some(pb::Body { content: None }), &["body"]),
        (Some(pb::Body { content: Some(pb::body::Content::Text("a\0b".to_owned())) }), &["body.text"]),
        (Some(binary(vec![0; 32 * 1024 + 1], "with space")), &["body.binary.data", "body.binary.content_type"]),
    ];

    for (body, bad) in cases {
        let mut expected = vec!["conversation_id", "sender_id", "client_message_id"];
        expected.extend(bad);
        expected.extend(["reply_to_seq", "attributes"]);
        assert_eq!(named(cluster.append(bad_append(body)).await), expected);
    }
    assert_empty(&cluster).await;
}

/// The fields of all items are named, and nothing is stored.
#[tokio::test]
async fn every_malformed_field_of_a_batch_is_named() {
    let cluster = HistoryCluster::start().await;
    cluster.create("lobby").await;
    let good = |key: &str| text("lobby", "ada", key, "x");
    let requests = vec![
        good("1"),
        pb::AppendMessageRequest { body: None, ..good("2") },
        good("3"),
        bad_append(Some(binary(Vec::new(), ""))),
    ];

    let fields = named(cluster.batch(requests).await);

    let expected = [
        "requests[1].body",
        "requests[3].conversation_id",
        "requests[3].sender_id",
        "requests[3].client_message_id",
        "requests[3].body.binary.content_type",
        "requests[3].reply_to_seq",
        "requests[3].attributes",
    ];
    assert_eq!(fields, expected);
    assert_empty(&cluster).await;
}

#[tokio::test]
async fn every_malformed_field_of_a_read_is_named() {
    let cluster = HistoryCluster::start().await;
    cluster.fill("lobby", 3).await;

    assert_eq!(named(cluster.conversation("").await), ["id"]);
    for seq in [0, -1, i64::MIN] {
        assert_eq!(named(cluster.message("a b", seq).await), ["conversation_id", "seq"]);
    }
    let bad = |anchor| pb::ListMessagesRequest { max_bytes: -1, min_seq: -1, ..at("a b", anchor, 201) };
    let common = ["conversation_id", "min_seq", "page_size", "max_bytes"];
    let anchors = [
        (Anchor::AfterSeq(-1), "after_seq"),
        (Anchor::BeforeSeq(0), "before_seq"),
        (Anchor::AroundSeq(0), "around_seq"),
    ];
    for (anchor, field) in anchors {
        assert_eq!(named(cluster.list(bad(anchor)).await), [&common[..], &[field]].concat());
    }
    let request = pb::ListUserMessagesRequest {
        user_id: "a b".to_owned(),
        scope: Scope::Visible.into(),
        page_size: -1,
        max_bytes: 3_670_017,
        page_token: "?".to_owned(),
    };
    let fields = named(cluster.authored(request).await);
    assert_eq!(fields, ["user_id", "scope", "page_size", "max_bytes", "page_token"]);
}

#[tokio::test]
async fn an_unsupported_scope_is_refused() {
    let cluster = HistoryCluster::start().await;
    let of = |scope| pb::ListUserMessagesRequest { user_id: "ada".to_owned(), scope, ..Default::default() };

    for scope in [Scope::Visible.into(), 3, -1] {
        assert_eq!(named(cluster.authored(of(scope)).await), ["scope"]);
    }
    for scope in [Scope::Unspecified, Scope::Authored] {
        assert!(cluster.authored(of(scope.into())).await.unwrap().messages.is_empty());
    }
}

/// A token is refused if it is altered, used in another list, or sent together with an anchor.
#[tokio::test]
async fn a_page_token_is_valid_only_in_its_own_list() {
    let cluster = HistoryCluster::start().await;
    cluster.fill("lobby", 9).await;
    cluster.fill("hall", 9).await;
    let page = cluster.list(at("lobby", Anchor::AroundSeq(5), 3)).await.unwrap();
    let authored = pb::ListUserMessagesRequest { user_id: "ada".to_owned(), page_size: 3, ..Default::default() };
    let mine = cluster.authored(authored.clone()).await.unwrap().next_page_token;

    for token in [&page.older_page_token, &page.newer_page_token] {
        let with = |conversation, token: &str| pb::ListMessagesRequest {
            page_token: token.to_owned(),
            ..newest(conversation, 3)
        };
        cluster.list(with("lobby", token)).await.unwrap();
        let altered = format!("{}{}", &token[..token.len() - 1], if token.ends_with('A') { 'B' } else { 'A' });
        let beside = pb::ListMessagesRequest { anchor: Some(Anchor::AfterSeq(1)), ..with("lobby", token) };
        let longer = format!("{token}A");
        let refused =
            [with("lobby", &altered), with("hall", token), beside, with("lobby", &longer), with("lobby", &mine)];
        for request in refused {
            assert_eq!(named(cluster.list(request).await), ["page_token"]);
        }
    }
    let stranger = pb::ListUserMessagesRequest { user_id: "bob".to_owned(), page_token: mine, ..authored.clone() };
    let foreign = pb::ListUserMessagesRequest { page_token: page.older_page_token, ..authored };
    for request in [stranger, foreign] {
        assert_eq!(named(cluster.authored(request).await), ["page_token"]);
    }
}

#[tokio::test]
async fn too_large_a_request_is_refused_without_disconnect() {
    let cluster = HistoryCluster::start().await;
    cluster.create("lobby").await;
    let requests = (0..100).map(|key| text("lobby", "ada", &key.to_string(), &"x".repeat(50_000)));

    let result = tokio::time::timeout(PATIENCE, cluster.batch(requests.collect())).await.unwrap();

    assert!(result.is_err());
    assert_empty(&cluster).await;
    cluster.create_as(open("hall")).await.unwrap();
}
