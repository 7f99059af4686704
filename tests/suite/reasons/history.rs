//! The reasons of the history service.

use tidings_proto::history as pb;
use tidings_proto::history::body::Content;
use tokio::join;

use super::{Reached, call, hurried, of_every_server, of_tokens, own_stack, tamper};
use crate::hostile::plain::Plain;
use crate::service::Service;

fn create(id: &str, title: &str, request_id: &str) -> pb::CreateConversationRequest {
    let kind = pb::conversation::Kind::Open.into();
    let conversation = pb::Conversation { id: id.to_owned(), kind, title: title.to_owned(), ..Default::default() };
    pb::CreateConversationRequest { conversation: Some(conversation), request_id: request_id.to_owned() }
}

fn append(conversation: &str, text: &str, reply_to_seq: i64) -> pb::AppendMessageRequest {
    pb::AppendMessageRequest {
        conversation_id: conversation.to_owned(),
        sender_id: "ada".to_owned(),
        client_message_id: "m1".to_owned(),
        body: Some(pb::Body { content: Some(Content::Text(text.to_owned())) }),
        reply_to_seq,
        ..Default::default()
    }
}

fn get(conversation: &str) -> pb::GetConversationRequest {
    pb::GetConversationRequest { id: conversation.to_owned() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reason_of_history_is_reached() {
    let mut reached = Reached::of("history");
    let stack = own_stack().await;
    // So that one call is as much as it works on while Postgres stands still.
    let flags = ["--max-in-flight", "1", "--postgres-statement-timeout", "500ms"];
    let service = Service::on(stack, "history", &flags, &[]).await;
    let plain = Plain::connect(service.address).await;
    call(&plain, "CreateConversation", &create("lobby", "Lobby", "r1")).await.unwrap();
    call(&plain, "AppendMessage", &append("lobby", "hello", 0)).await.unwrap();

    reached.note("INVALID_FIELDS", call(&plain, "GetConversation", &get("no spaces")).await);
    reached.note("CONVERSATION_NOT_FOUND", call(&plain, "GetConversation", &get("nowhere")).await);
    let message = pb::GetMessageRequest { conversation_id: "lobby".to_owned(), seq: 99 };
    reached.note("MESSAGE_NOT_FOUND", call(&plain, "GetMessage", &message).await);
    reached.note("CONVERSATION_ID_TAKEN", call(&plain, "CreateConversation", &create("lobby", "Bar", "")).await);
    reached.note("REQUEST_ID_REUSED", call(&plain, "CreateConversation", &create("bar", "Bar", "r1")).await);
    reached.note("CLIENT_MESSAGE_ID_REUSED", call(&plain, "AppendMessage", &append("lobby", "other", 0)).await);
    let mut reply = append("lobby", "yes", 99);
    reply.client_message_id = "m2".to_owned();
    reached.note("REPLY_TARGET_NOT_FOUND", call(&plain, "AppendMessage", &reply).await);
    let list = pb::ListMessagesRequest { conversation_id: "lobby".to_owned(), min_seq: 99, ..Default::default() };
    reached.note("SEQ_AHEAD", call(&plain, "ListMessages", &list).await);
    of_every_server(&mut reached, &service, "GetConversation", &get("lobby")).await;
    of_tokens(&mut reached, stack, "history", "GetConversation").await;

    stack.postgres().pause();
    let late = hurried(&plain, "GetConversation", &get("late")).await;
    let request = get("lobby");
    let (one, other) = join!(call(&plain, "GetConversation", &request), call(&plain, "GetConversation", &request));
    stack.postgres().resume();
    let (waited, refused) =
        if one.as_ref().is_err_and(|failure| failure.reason == "OVERLOADED") { (other, one) } else { (one, other) };
    reached.note("DEADLINE_EXCEEDED", late);
    reached.note_retry("STORE_AWAY", waited);
    reached.note_retry("OVERLOADED", refused);

    tamper(stack, &service, "ALTER TABLE conversation RENAME TO gone").await;
    reached.note("INTERNAL", call(&plain, "GetConversation", &get("lobby")).await);

    reached.assert_all();
}
