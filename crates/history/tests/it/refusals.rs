//! Malformed requests: all bad fields are named at once, and nothing is stored.

use tidings_proto::history as pb;
use tidings_proto::history::list_user_messages_request::Scope;
use tidings_status::Failure;
use tonic::Code;

use crate::support::client::{Anchor, Answer, at, binary, newest, open, text};
use crate::support::{Histories, PATIENCE};

/// An attribute that must not be.
fn nul() -> std::collections::BTreeMap<String, String> {
    [("name".to_owned(), "a\0b".to_owned())].into()
}

/// The malformed fields, in the order of the contract.
#[track_caller]
fn named<T: std::fmt::Debug>(answer: Answer<T>) -> Vec<String> {
    let failure: Failure = *answer.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELDS"), "{failure}");
    assert_eq!(failure.domain, "history.tidings");
    let fields = failure.violations.iter().map(|violation| violation.field.clone()).collect();
    for violation in failure.violations {
        assert!(failure.message.contains(&violation.description), "{}", failure.message);
    }
    fields
}

async fn assert_empty(histories: &Histories<'_>) {
    assert_eq!(histories.count("SELECT (SELECT count(*) FROM message) + (SELECT count(*) FROM outbox)").await, 0);
}

/// A request to append in which every field is bad.
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
    let histories = Histories::start().await;
    let conversation = pb::Conversation {
        id: "{lobby}".to_owned(),
        title: "a\0b".to_owned(),
        attributes: nul(),
        ..Default::default()
    };
    let request = pb::CreateConversationRequest { conversation: Some(conversation), request_id: "a b".to_owned() };

    let fields = named(histories.create_as(request).await);
    assert_eq!(
        fields,
        ["request_id", "conversation.id", "conversation.kind", "conversation.title", "conversation.attributes"]
    );
    let fields = named(histories.create_as(pb::CreateConversationRequest::default()).await);
    assert_eq!(fields[0], "conversation");
    assert_eq!(histories.count("SELECT count(*) FROM conversation").await, 0);
}

#[tokio::test]
async fn every_malformed_field_of_an_append_is_named() {
    let histories = Histories::start().await;
    histories.create("lobby").await;
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
        assert_eq!(named(histories.append(bad_append(body)).await), expected);
    }
    assert_empty(&histories).await;
}

#[tokio::test]
async fn every_malformed_field_of_every_item_of_a_batch_is_named_and_nothing_is_stored() {
    let histories = Histories::start().await;
    histories.create("lobby").await;
    let good = |key: &str| text("lobby", "ada", key, "x");
    let requests = vec![
        good("1"),
        pb::AppendMessageRequest { body: None, ..good("2") },
        good("3"),
        bad_append(Some(binary(Vec::new(), ""))),
    ];

    let fields = named(histories.batch(requests).await);

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
    assert_empty(&histories).await;
}

#[tokio::test]
async fn every_malformed_field_of_a_read_is_named() {
    let histories = Histories::start().await;
    histories.fill("lobby", 3).await;

    assert_eq!(named(histories.conversation("").await), ["id"]);
    for seq in [0, -1, i64::MIN] {
        assert_eq!(named(histories.message("a b", seq).await), ["conversation_id", "seq"]);
    }
    let bad = |anchor| pb::ListMessagesRequest { max_bytes: -1, min_seq: -1, ..at("a b", anchor, 201) };
    let common = ["conversation_id", "min_seq", "page_size", "max_bytes"];
    let anchors = [
        (Anchor::AfterSeq(-1), "after_seq"),
        (Anchor::BeforeSeq(0), "before_seq"),
        (Anchor::AroundSeq(0), "around_seq"),
    ];
    for (anchor, field) in anchors {
        assert_eq!(named(histories.list(bad(anchor)).await), [&common[..], &[field]].concat());
    }
    let request = pb::ListUserMessagesRequest {
        user_id: "a b".to_owned(),
        scope: Scope::Visible.into(),
        page_size: -1,
        max_bytes: 3_670_017,
        page_token: "?".to_owned(),
    };
    let fields = named(histories.authored(request).await);
    assert_eq!(fields, ["user_id", "scope", "page_size", "max_bytes", "page_token"]);
}

#[tokio::test]
async fn a_scope_that_is_not_kept_yet_is_refused() {
    let histories = Histories::start().await;
    let of = |scope| pb::ListUserMessagesRequest { user_id: "ada".to_owned(), scope, ..Default::default() };

    for scope in [Scope::Visible.into(), 3, -1] {
        assert_eq!(named(histories.authored(of(scope)).await), ["scope"]);
    }
    for scope in [Scope::Unspecified, Scope::Authored] {
        assert!(histories.authored(of(scope.into())).await.unwrap().messages.is_empty());
    }
}

#[tokio::test]
async fn a_token_is_refused_when_altered_in_another_list_or_beside_an_anchor() {
    let histories = Histories::start().await;
    histories.fill("lobby", 9).await;
    histories.fill("hall", 9).await;
    let page = histories.list(at("lobby", Anchor::AroundSeq(5), 3)).await.unwrap();
    let authored = pb::ListUserMessagesRequest { user_id: "ada".to_owned(), page_size: 3, ..Default::default() };
    let mine = histories.authored(authored.clone()).await.unwrap().next_page_token;

    for token in [&page.older_page_token, &page.newer_page_token] {
        let with = |conversation, token: &str| pb::ListMessagesRequest {
            page_token: token.to_owned(),
            ..newest(conversation, 3)
        };
        histories.list(with("lobby", token)).await.unwrap();
        let altered = format!("{}{}", &token[..token.len() - 1], if token.ends_with('A') { 'B' } else { 'A' });
        let beside = pb::ListMessagesRequest { anchor: Some(Anchor::AfterSeq(1)), ..with("lobby", token) };
        let longer = format!("{token}A");
        let refused =
            [with("lobby", &altered), with("hall", token), beside, with("lobby", &longer), with("lobby", &mine)];
        for request in refused {
            assert_eq!(named(histories.list(request).await), ["page_token"]);
        }
    }
    let stranger = pb::ListUserMessagesRequest { user_id: "bob".to_owned(), page_token: mine, ..authored.clone() };
    let foreign = pb::ListUserMessagesRequest { page_token: page.older_page_token, ..authored };
    for request in [stranger, foreign] {
        assert_eq!(named(histories.authored(request).await), ["page_token"]);
    }
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_and_the_connection_goes_on() {
    let histories = Histories::start().await;
    histories.create("lobby").await;
    let requests = (0..100).map(|key| text("lobby", "ada", &key.to_string(), &"x".repeat(50_000)));

    let answer = tokio::time::timeout(PATIENCE, histories.batch(requests.collect())).await.unwrap();

    assert!(answer.is_err());
    assert_empty(&histories).await;
    histories.create_as(open("hall")).await.unwrap();
}
