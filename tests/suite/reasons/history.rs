//! Covers the reasons of the history service.

use tidings_proto::history as pb;
use tidings_proto::history::body::Content;
use tokio::join;

use super::{
    ReasonCoverage, call, call_until_reason, call_with_short_deadline, cover_server_reasons, cover_token_reasons,
    execute_sql, own_stack,
};
use crate::hostile::grpc_client::GrpcClient;
use crate::service::TestService;

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
async fn every_reason_of_history_is_covered() {
    let mut coverage = ReasonCoverage::new("history");
    let stack = own_stack().await;
    // A stopped Postgres holds one call, which is the limit of calls in flight.
    let flags = ["--max-in-flight", "1", "--postgres-statement-timeout", "500ms"];
    let service = TestService::start_on(stack, "history", &flags, &[]).await;
    let client = GrpcClient::connect(service.address).await;
    call(&client, "CreateConversation", &create("lobby", "Lobby", "r1")).await.unwrap();
    call(&client, "AppendMessage", &append("lobby", "hello", 0)).await.unwrap();

    coverage.record("INVALID_FIELDS", call(&client, "GetConversation", &get("no spaces")).await);
    coverage.record("CONVERSATION_NOT_FOUND", call(&client, "GetConversation", &get("nowhere")).await);
    let message = pb::GetMessageRequest { conversation_id: "lobby".to_owned(), seq: 99 };
    coverage.record("MESSAGE_NOT_FOUND", call(&client, "GetMessage", &message).await);
    coverage.record("CONVERSATION_ID_TAKEN", call(&client, "CreateConversation", &create("lobby", "Bar", "")).await);
    coverage.record("REQUEST_ID_REUSED", call(&client, "CreateConversation", &create("bar", "Bar", "r1")).await);
    coverage.record("CLIENT_MESSAGE_ID_REUSED", call(&client, "AppendMessage", &append("lobby", "other", 0)).await);
    let mut reply = append("lobby", "yes", 99);
    reply.client_message_id = "m2".to_owned();
    coverage.record("REPLY_TARGET_NOT_FOUND", call(&client, "AppendMessage", &reply).await);
    let list = pb::ListMessagesRequest { conversation_id: "lobby".to_owned(), min_seq: 99, ..Default::default() };
    coverage.record("SEQ_AHEAD", call(&client, "ListMessages", &list).await);
    cover_server_reasons(&mut coverage, &service, "GetConversation", &get("lobby")).await;
    cover_token_reasons(&mut coverage, stack, "history", "GetConversation").await;

    stack.postgres().pause();
    let late = call_with_short_deadline(&client, "GetConversation", &get("late")).await;
    let request = get("lobby");
    let (one, other) = join!(call(&client, "GetConversation", &request), call(&client, "GetConversation", &request));
    let refused = if one.as_ref().is_err_and(|failure| failure.reason == "OVERLOADED") { one } else { other };
    let timed_out = call_until_reason(&client, "GetConversation", &request, "STORE_AWAY").await;
    stack.postgres().resume();
    let recovered = call_until_reason(&client, "GetConversation", &get("gone"), "CONVERSATION_NOT_FOUND").await;
    coverage.record("DEADLINE_EXCEEDED", late);
    coverage.record_with_retry("STORE_AWAY", timed_out);
    coverage.record_with_retry("OVERLOADED", refused);
    coverage.record("CONVERSATION_NOT_FOUND", recovered);

    execute_sql(stack, &service, "ALTER TABLE conversation RENAME TO gone").await;
    coverage.record("INTERNAL", call(&client, "GetConversation", &get("lobby")).await);

    coverage.assert_complete();
}
