//! Scenarios of the history service.

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

use crate::call::{BenchCall, CallFailure, CallSlot};
use crate::context::{ScenarioContext, prepare_each, scenario_call};

/// Number of conversations from which pages are read: few, because each is filled first.
const PAGED: u32 = 20;
/// Batches of messages in each of them: more than the cache keeps, so that the first page is not
/// cached.
const BATCHES_PER_CONVERSATION: u64 = 4;
const BATCH_SIZE: u64 = 100;

/// Creates a conversation.
pub(super) fn create(context: &Arc<ScenarioContext>) -> BenchCall {
    scenario_call(context, async |context, slot| create_conversation(&context, slot, context.id(slot.number)).await)
}

/// Reads a conversation.
pub(super) async fn get(context: Arc<ScenarioContext>) -> Result<BenchCall, CallFailure> {
    conversations(&context, context.shape.keys).await?;
    Ok(scenario_call(&context, async |context, slot| {
        let request = GetConversationRequest { id: context.key(slot) };
        let send =
            |channel, request| async move { ConversationServiceClient::new(channel).get_conversation(request).await };
        context.call(slot.caller, request, send).await?;
        Ok(1)
    }))
}

/// Appends a message.
pub(super) async fn append(context: Arc<ScenarioContext>) -> Result<BenchCall, CallFailure> {
    conversations(&context, context.shape.keys).await?;
    Ok(scenario_call(&context, async |context, slot| {
        let request = message(&context, context.key(slot), slot.number);
        let send = |channel, request| async move { HistoryServiceClient::new(channel).append_message(request).await };
        context.call(slot.caller, request, send).await?;
        Ok(1)
    }))
}

/// Appends a batch of messages to as many conversations.
pub(super) async fn batch_append(context: Arc<ScenarioContext>) -> Result<BenchCall, CallFailure> {
    conversations(&context, context.shape.keys).await?;
    Ok(scenario_call(&context, async |context, slot| {
        let keys = u64::from(context.shape.keys);
        let requests = context.batch(slot).map(|number| message(&context, context.id(number % keys), number)).collect();
        append_batch(&context, slot, requests).await
    }))
}

/// Reads one message.
pub(super) async fn get_message(context: Arc<ScenarioContext>) -> Result<BenchCall, CallFailure> {
    filled(&context).await?;
    Ok(scenario_call(&context, async |context, slot| {
        let seq = i64::try_from(slot.number % (BATCHES_PER_CONVERSATION * BATCH_SIZE)).unwrap_or(0) + 1;
        let request = GetMessageRequest { conversation_id: filled_id(&context, slot), seq };
        let send = |channel, request| async move { HistoryServiceClient::new(channel).get_message(request).await };
        context.call(slot.caller, request, send).await?;
        Ok(1)
    }))
}

/// Reads the newest page.
pub(super) async fn list(context: Arc<ScenarioContext>) -> Result<BenchCall, CallFailure> {
    filled(&context).await?;
    Ok(scenario_call(&context, async |context, slot| page(&context, slot, None).await))
}

/// Reads the first page.
pub(super) async fn list_old(context: Arc<ScenarioContext>) -> Result<BenchCall, CallFailure> {
    filled(&context).await?;
    Ok(scenario_call(&context, async |context, slot| page(&context, slot, Some(Anchor::AfterSeq(0))).await))
}

/// Reads the newest messages of a user.
pub(super) async fn list_user(context: Arc<ScenarioContext>) -> Result<BenchCall, CallFailure> {
    filled(&context).await?;
    Ok(scenario_call(&context, async |context, slot| {
        let page_size = context.shape.batch.into();
        let request = ListUserMessagesRequest { user_id: context.id_prefix.clone(), page_size, ..Default::default() };
        let send =
            |channel, request| async move { HistoryServiceClient::new(channel).list_user_messages(request).await };
        Ok(context.call(slot.caller, request, send).await?.messages.len() as u64)
    }))
}

async fn page(context: &ScenarioContext, slot: CallSlot, anchor: Option<Anchor>) -> Result<u64, CallFailure> {
    let page_size = context.shape.batch.into();
    // Enough for a full page of messages of any size.
    let max_bytes = 3_670_016;
    let conversation_id = filled_id(context, slot);
    let request = ListMessagesRequest { conversation_id, anchor, page_size, max_bytes, ..Default::default() };
    let send = |channel, request| async move { HistoryServiceClient::new(channel).list_messages(request).await };
    Ok(context.call(slot.caller, request, send).await?.messages.len() as u64)
}

/// Creates the first conversations.
async fn conversations(context: &ScenarioContext, count: u32) -> Result<(), CallFailure> {
    prepare_each(count.into(), |slot| create_conversation(context, slot, context.id(slot.number))).await?;
    Ok(())
}

/// Creates conversations with messages.
async fn filled(context: &ScenarioContext) -> Result<(), CallFailure> {
    conversations(context, PAGED).await?;
    let fill = |slot| async move {
        let numbers = |batch| batch * BATCH_SIZE..(batch + 1) * BATCH_SIZE;
        for batch in 0..BATCHES_PER_CONVERSATION {
            let requests = numbers(batch).map(|number| message(context, filled_id(context, slot), number)).collect();
            append_batch(context, slot, requests).await?;
        }
        Ok(())
    };
    prepare_each(PAGED.into(), fill).await?;
    Ok(())
}

fn filled_id(context: &ScenarioContext, slot: CallSlot) -> String {
    context.id(slot.number % u64::from(PAGED))
}

fn message(context: &ScenarioContext, conversation_id: String, number: u64) -> AppendMessageRequest {
    AppendMessageRequest {
        conversation_id,
        sender_id: context.id_prefix.clone(),
        client_message_id: number.to_string(),
        body: Some(Body { content: Some(Content::Text(context.text())) }),
        ..Default::default()
    }
}

async fn create_conversation(context: &ScenarioContext, slot: CallSlot, id: String) -> Result<u64, CallFailure> {
    let conversation = Conversation { id, kind: Kind::Open.into(), ..Default::default() };
    let request = CreateConversationRequest { conversation: Some(conversation), ..Default::default() };
    let send =
        |channel, request| async move { ConversationServiceClient::new(channel).create_conversation(request).await };
    context.call(slot.caller, request, send).await?;
    Ok(1)
}

async fn append_batch(
    context: &ScenarioContext,
    slot: CallSlot,
    requests: Vec<AppendMessageRequest>,
) -> Result<u64, CallFailure> {
    let request = BatchAppendMessagesRequest { requests };
    let send =
        |channel, request| async move { HistoryServiceClient::new(channel).batch_append_messages(request).await };
    let results = context.call(slot.caller, request, send).await?.results;
    let failure = results.iter().find_map(|result| match &result.outcome {
        Some(Outcome::Failure(failure)) => Some(AppendFailure::reason(failure).as_str_name()),
        _ => None,
    });
    failure.map_or(Ok(results.len() as u64), |reason| Err(CallFailure::unexpected(reason)))
}
