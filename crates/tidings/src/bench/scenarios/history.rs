//! The history service.

use std::sync::Arc;

use tidings_proto::history::batch_append_messages_result::Outcome;
use tidings_proto::history::body::Content;
use tidings_proto::history::conversation::Kind;
use tidings_proto::history::conversation_service_client::ConversationServiceClient;
use tidings_proto::history::history_service_client::HistoryServiceClient;
use tidings_proto::history::list_messages_request::Anchor;
use tidings_proto::history::{
    AppendFailure, AppendMessageRequest, BatchAppendMessagesRequest, Body, Conversation, CreateConversationRequest,
    GetConversationRequest, GetMessageRequest, ListMessagesRequest, ListUserMessagesRequest,
};

use crate::bench::ground::{Ground, calls, each};
use crate::load::{Call, Fault, Turn};

/// Conversations that pages are read from: few, because each has to be filled first.
const READ: u32 = 20;
/// Batches of a hundred messages that each of them has: more than the cache keeps, so that its first page is not there.
const BATCHES: u64 = 4;
const BATCH: u64 = 100;

/// Creates a conversation.
pub(super) fn create(ground: &Arc<Ground>) -> Call {
    calls(ground, async |ground, turn| create_conversation(&ground, turn, ground.id(turn.number)).await)
}

/// Reads a conversation.
pub(super) async fn get(ground: Arc<Ground>) -> Result<Call, Fault> {
    conversations(&ground, ground.shape.keys).await?;
    Ok(calls(&ground, async |ground, turn| {
        let request = GetConversationRequest { id: ground.key(turn) };
        let send =
            |channel, request| async move { ConversationServiceClient::new(channel).get_conversation(request).await };
        ground.ask(turn.caller, request, send).await?;
        Ok(1)
    }))
}

/// Appends a message.
pub(super) async fn append(ground: Arc<Ground>) -> Result<Call, Fault> {
    conversations(&ground, ground.shape.keys).await?;
    Ok(calls(&ground, async |ground, turn| {
        let request = message(&ground, ground.key(turn), turn.number);
        let send = |channel, request| async move { HistoryServiceClient::new(channel).append_message(request).await };
        ground.ask(turn.caller, request, send).await?;
        Ok(1)
    }))
}

/// Appends a batch of messages to as many conversations.
pub(super) async fn batch_append(ground: Arc<Ground>) -> Result<Call, Fault> {
    conversations(&ground, ground.shape.keys).await?;
    Ok(calls(&ground, async |ground, turn| {
        let keys = u64::from(ground.shape.keys);
        let requests = ground.batch(turn).map(|number| message(&ground, ground.id(number % keys), number)).collect();
        append_batch(&ground, turn, requests).await
    }))
}

/// Reads one message.
pub(super) async fn get_message(ground: Arc<Ground>) -> Result<Call, Fault> {
    filled(&ground).await?;
    Ok(calls(&ground, async |ground, turn| {
        let seq = i64::try_from(turn.number % (BATCHES * BATCH)).unwrap_or(0) + 1;
        let request = GetMessageRequest { conversation_id: filled_id(&ground, turn), seq };
        let send = |channel, request| async move { HistoryServiceClient::new(channel).get_message(request).await };
        ground.ask(turn.caller, request, send).await?;
        Ok(1)
    }))
}

/// Reads the newest page.
pub(super) async fn list(ground: Arc<Ground>) -> Result<Call, Fault> {
    filled(&ground).await?;
    Ok(calls(&ground, async |ground, turn| page(&ground, turn, None).await))
}

/// Reads the first page.
pub(super) async fn list_old(ground: Arc<Ground>) -> Result<Call, Fault> {
    filled(&ground).await?;
    Ok(calls(&ground, async |ground, turn| page(&ground, turn, Some(Anchor::AfterSeq(0))).await))
}

/// Reads the newest messages of a user.
pub(super) async fn list_user(ground: Arc<Ground>) -> Result<Call, Fault> {
    filled(&ground).await?;
    Ok(calls(&ground, async |ground, turn| {
        let page_size = ground.shape.batch.into();
        let request = ListUserMessagesRequest { user_id: ground.run.clone(), page_size, ..Default::default() };
        let send =
            |channel, request| async move { HistoryServiceClient::new(channel).list_user_messages(request).await };
        Ok(ground.ask(turn.caller, request, send).await?.messages.len() as u64)
    }))
}

async fn page(ground: &Ground, turn: Turn, anchor: Option<Anchor>) -> Result<u64, Fault> {
    let page_size = ground.shape.batch.into();
    // Whatever the size of the messages, as many as were asked for.
    let max_bytes = 3_670_016;
    let conversation_id = filled_id(ground, turn);
    let request = ListMessagesRequest { conversation_id, anchor, page_size, max_bytes, ..Default::default() };
    let send = |channel, request| async move { HistoryServiceClient::new(channel).list_messages(request).await };
    Ok(ground.ask(turn.caller, request, send).await?.messages.len() as u64)
}

/// Creates the first conversations.
async fn conversations(ground: &Ground, count: u32) -> Result<(), Fault> {
    each(count.into(), |turn| create_conversation(ground, turn, ground.id(turn.number))).await?;
    Ok(())
}

/// Creates conversations with messages.
async fn filled(ground: &Ground) -> Result<(), Fault> {
    conversations(ground, READ).await?;
    let fill = |turn| async move {
        let numbers = |batch| batch * BATCH..(batch + 1) * BATCH;
        for batch in 0..BATCHES {
            let requests = numbers(batch).map(|number| message(ground, filled_id(ground, turn), number)).collect();
            append_batch(ground, turn, requests).await?;
        }
        Ok(())
    };
    each(READ.into(), fill).await?;
    Ok(())
}

fn filled_id(ground: &Ground, turn: Turn) -> String {
    ground.id(turn.number % u64::from(READ))
}

fn message(ground: &Ground, conversation_id: String, number: u64) -> AppendMessageRequest {
    AppendMessageRequest {
        conversation_id,
        sender_id: ground.run.clone(),
        client_message_id: number.to_string(),
        body: Some(Body { content: Some(Content::Text(ground.text())) }),
        ..Default::default()
    }
}

async fn create_conversation(ground: &Ground, turn: Turn, id: String) -> Result<u64, Fault> {
    let conversation = Conversation { id, kind: Kind::Open.into(), ..Default::default() };
    let request = CreateConversationRequest { conversation: Some(conversation), ..Default::default() };
    let send =
        |channel, request| async move { ConversationServiceClient::new(channel).create_conversation(request).await };
    ground.ask(turn.caller, request, send).await?;
    Ok(1)
}

async fn append_batch(ground: &Ground, turn: Turn, requests: Vec<AppendMessageRequest>) -> Result<u64, Fault> {
    let request = BatchAppendMessagesRequest { requests };
    let send =
        |channel, request| async move { HistoryServiceClient::new(channel).batch_append_messages(request).await };
    let results = ground.ask(turn.caller, request, send).await?.results;
    let failure = results.iter().find_map(|result| match &result.outcome {
        Some(Outcome::Failure(failure)) => Some(AppendFailure::reason(failure).as_str_name()),
        _ => None,
    });
    failure.map_or(Ok(results.len() as u64), |reason| Err(Fault::answer(reason)))
}
