//! CreateConversation and GetConversation: a creation is idempotent.

use tidings_proto::history as pb;
use tidings_proto::history::conversation::Kind;
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::HistoryCluster;
use crate::support::client::open;

fn titled(id: &str, title: &str, request_id: &str) -> pb::CreateConversationRequest {
    let mut request = open(id);
    let conversation = request.conversation.as_mut().unwrap();
    title.clone_into(&mut conversation.title);
    conversation.attributes = [("topic".to_owned(), "ships".to_owned())].into();
    pb::CreateConversationRequest { request_id: request_id.to_owned(), ..request }
}

#[tokio::test]
async fn a_conversation_is_read_as_it_was_created() {
    let cluster = HistoryCluster::start().await;

    let created = cluster.create_as(titled("lobby", "Lobby", "")).await.unwrap();
    let conversation = created.conversation.unwrap();

    assert!(!created.deduplicated);
    assert_eq!((conversation.id.as_str(), conversation.title.as_str()), ("lobby", "Lobby"));
    assert_eq!((conversation.kind(), conversation.last_seq, conversation.version), (Kind::Open, 0, 1));
    assert_eq!(conversation.attributes["topic"], "ships");
    assert_eq!(conversation.create_time, conversation.update_time);
    assert_eq!(cluster.conversation("lobby").await.unwrap(), conversation);
}

#[tokio::test]
async fn a_retry_by_id_returns_the_current_conversation() {
    let cluster = HistoryCluster::start().await;
    cluster.create_as(titled("lobby", "Lobby", "")).await.unwrap();
    cluster.say("lobby", "ada", "hello").await;

    let retry = cluster.create_as(titled("lobby", "Lobby", "")).await.unwrap();

    assert!(retry.deduplicated);
    assert_eq!(retry.conversation.unwrap().last_seq, 1);
}

#[tokio::test]
async fn a_retry_by_request_id_returns_the_generated_id() {
    let cluster = HistoryCluster::start().await;

    let first = cluster.create_as(titled("", "Lobby", "job-1")).await.unwrap();
    let retry = cluster.create_as(titled("", "Lobby", "job-1")).await.unwrap();
    let other = cluster.create_as(titled("", "Lobby", "job-2")).await.unwrap();

    assert_eq!((first.deduplicated, retry.deduplicated, other.deduplicated), (false, true, false));
    assert_eq!(first.conversation, retry.conversation);
    assert_ne!(first.conversation.unwrap().id, other.conversation.unwrap().id);
}

/// A conversation is another one if its content or its request id differs.
#[tokio::test]
async fn an_id_of_another_conversation_is_taken() {
    let cluster = HistoryCluster::start().await;
    cluster.create_as(titled("lobby", "Lobby", "job-1")).await.unwrap();

    for request in [titled("lobby", "Hall", ""), titled("lobby", "Lobby", "job-2")] {
        let failure = cluster.create_as(request).await.unwrap_err();
        assert_eq!((failure.code, failure.reason.as_str()), (Code::AlreadyExists, "CONVERSATION_ID_TAKEN"));
    }
    assert_eq!(cluster.conversation("lobby").await.unwrap().title, "Lobby");
}

#[tokio::test]
async fn a_request_id_with_other_content_is_refused() {
    let cluster = HistoryCluster::start().await;
    cluster.create_as(titled("lobby", "Lobby", "job-1")).await.unwrap();

    for request in [titled("lobby", "Hall", "job-1"), titled("hall", "Lobby", "job-1"), titled("", "Lobby", "job-1")] {
        let failure = cluster.create_as(request).await.unwrap_err();
        assert_eq!((failure.code, failure.reason.as_str()), (Code::AlreadyExists, "REQUEST_ID_REUSED"));
    }
    assert_eq!(cluster.count("SELECT count(*) FROM conversation").await, 1);
}

#[tokio::test]
async fn kinds_other_than_open_are_refused() {
    let cluster = HistoryCluster::start().await;

    for kind in [0, Kind::Direct.into(), Kind::Group.into(), 4, -1] {
        let mut request = open("lobby");
        request.conversation.as_mut().unwrap().kind = kind;
        let failure = cluster.create_as(request).await.unwrap_err();
        assert_eq!(failure.code, Code::InvalidArgument);
        assert_eq!(failure.violations[0].field, "conversation.kind");
    }
    assert_eq!(cluster.count("SELECT count(*) FROM conversation").await, 0);
}

/// 32 calls over two instances: one creates the conversation, the others are deduplicated.
#[tokio::test]
async fn concurrent_creations_of_one_id_make_one_conversation() {
    let cluster = HistoryCluster::start_two().await;

    let mut creations = JoinSet::new();
    for index in 0..32 {
        let client = cluster.client(index % 2);
        creations.spawn(async move { client.create_as(titled("lobby", "Lobby", "")).await.unwrap() });
    }
    let created = creations.join_all().await;

    assert_eq!(created.iter().filter(|created| !created.deduplicated).count(), 1);
    assert!(created.iter().all(|one| one.conversation == created[0].conversation));
}

#[tokio::test]
async fn an_unknown_conversation_is_not_found() {
    let cluster = HistoryCluster::start().await;

    let failure = cluster.conversation("nowhere").await.unwrap_err();

    assert_eq!((failure.code, failure.reason.as_str()), (Code::NotFound, "CONVERSATION_NOT_FOUND"));
    assert_eq!(failure.domain, "history.tidings");
}
