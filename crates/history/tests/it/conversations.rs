//! Conversations: created once, however often asked.

use tidings_proto::history as pb;
use tidings_proto::history::conversation::Kind;
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::Histories;
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
    let histories = Histories::start().await;

    let created = histories.create_as(titled("lobby", "Lobby", "")).await.unwrap();
    let conversation = created.conversation.unwrap();

    assert!(!created.deduplicated);
    assert_eq!((conversation.id.as_str(), conversation.title.as_str()), ("lobby", "Lobby"));
    assert_eq!((conversation.kind(), conversation.last_seq, conversation.version), (Kind::Open, 0, 1));
    assert_eq!(conversation.attributes["topic"], "ships");
    assert_eq!(conversation.create_time, conversation.update_time);
    assert_eq!(histories.conversation("lobby").await.unwrap(), conversation);
}

#[tokio::test]
async fn a_repeat_by_id_answers_with_the_conversation_as_it_is_now() {
    let histories = Histories::start().await;
    histories.create_as(titled("lobby", "Lobby", "")).await.unwrap();
    histories.say("lobby", "ada", "hello").await;

    let repeat = histories.create_as(titled("lobby", "Lobby", "")).await.unwrap();

    assert!(repeat.deduplicated);
    assert_eq!(repeat.conversation.unwrap().last_seq, 1);
}

#[tokio::test]
async fn a_repeat_by_request_id_answers_with_the_conversation_whose_id_was_made() {
    let histories = Histories::start().await;

    let first = histories.create_as(titled("", "Lobby", "job-1")).await.unwrap();
    let again = histories.create_as(titled("", "Lobby", "job-1")).await.unwrap();
    let other = histories.create_as(titled("", "Lobby", "job-2")).await.unwrap();

    assert_eq!((first.deduplicated, again.deduplicated, other.deduplicated), (false, true, false));
    assert_eq!(first.conversation, again.conversation);
    assert_ne!(first.conversation.unwrap().id, other.conversation.unwrap().id);
}

#[tokio::test]
async fn an_id_of_another_content_or_another_request_is_taken() {
    let histories = Histories::start().await;
    histories.create_as(titled("lobby", "Lobby", "job-1")).await.unwrap();

    for request in [titled("lobby", "Hall", ""), titled("lobby", "Lobby", "job-2")] {
        let failure = histories.create_as(request).await.unwrap_err();
        assert_eq!((failure.code, failure.reason.as_str()), (Code::AlreadyExists, "CONVERSATION_ID_TAKEN"));
    }
    assert_eq!(histories.conversation("lobby").await.unwrap().title, "Lobby");
}

#[tokio::test]
async fn a_request_id_of_another_content_is_refused() {
    let histories = Histories::start().await;
    histories.create_as(titled("lobby", "Lobby", "job-1")).await.unwrap();

    for request in [titled("lobby", "Hall", "job-1"), titled("hall", "Lobby", "job-1"), titled("", "Lobby", "job-1")] {
        let failure = histories.create_as(request).await.unwrap_err();
        assert_eq!((failure.code, failure.reason.as_str()), (Code::AlreadyExists, "REQUEST_ID_REUSED"));
    }
    assert_eq!(histories.count("SELECT count(*) FROM conversation").await, 1);
}

#[tokio::test]
async fn kinds_other_than_open_are_refused() {
    let histories = Histories::start().await;

    for kind in [0, Kind::Direct.into(), Kind::Group.into(), 4, -1] {
        let mut request = open("lobby");
        request.conversation.as_mut().unwrap().kind = kind;
        let failure = histories.create_as(request).await.unwrap_err();
        assert_eq!(failure.code, Code::InvalidArgument);
        assert_eq!(failure.violations[0].field, "conversation.kind");
    }
    assert_eq!(histories.count("SELECT count(*) FROM conversation").await, 0);
}

#[tokio::test]
async fn thirty_two_concurrent_creations_of_one_id_make_one_conversation() {
    let histories = Histories::start_two().await;

    let mut creations = JoinSet::new();
    for place in 0..32 {
        let client = histories.client(place % 2);
        creations.spawn(async move { client.create_as(titled("lobby", "Lobby", "")).await.unwrap() });
    }
    let created = creations.join_all().await;

    assert_eq!(created.iter().filter(|created| !created.deduplicated).count(), 1);
    assert!(created.iter().all(|one| one.conversation == created[0].conversation));
}

#[tokio::test]
async fn an_unknown_conversation_is_not_found() {
    let histories = Histories::start().await;

    let failure = histories.conversation("nowhere").await.unwrap_err();

    assert_eq!((failure.code, failure.reason.as_str()), (Code::NotFound, "CONVERSATION_NOT_FOUND"));
    assert_eq!(failure.domain, "history.tidings");
}
