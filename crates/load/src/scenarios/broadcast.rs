//! Scenarios of the broadcast service without subscribers.

use std::sync::Arc;

use bytes::Bytes;
use tidings_proto::broadcast::batch_publish_result::Outcome;
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tidings_proto::broadcast::{BatchPublishRequest, GetChannelRequest, PublishFailure, PublishRequest};

use crate::call::{BenchCall, CallFailure, CallSlot};
use crate::context::{ScenarioContext, scenario_call};

/// Publishes a message.
pub(super) fn publish(context: &Arc<ScenarioContext>) -> BenchCall {
    scenario_call(context, async |context, slot| send(&context, slot, context.key(slot), context.data()).await)
}

/// Publishes a batch of messages to as many channels.
pub(super) fn batch_publish(context: &Arc<ScenarioContext>) -> BenchCall {
    scenario_call(context, async |context, slot| {
        let keys = u64::from(context.shape.keys);
        let requests = context.batch(slot).map(|number| message(context.id(number % keys), context.data())).collect();
        let request = BatchPublishRequest { requests };
        let send = |channel, request| async move { BroadcastServiceClient::new(channel).batch_publish(request).await };
        let results = context.call(slot.caller, request, send).await?.results;
        let failure = results.iter().find_map(|result| match &result.outcome {
            Some(Outcome::Failure(failure)) => Some(PublishFailure::reason(failure).as_str_name()),
            _ => None,
        });
        failure.map_or(Ok(results.len() as u64), |reason| Err(CallFailure::unexpected(reason)))
    })
}

/// Reads the head of a channel.
pub(super) fn get(context: &Arc<ScenarioContext>) -> BenchCall {
    scenario_call(context, async |context, slot| {
        let request = GetChannelRequest { name: context.key(slot) };
        let send = |channel, request| async move { BroadcastServiceClient::new(channel).get_channel(request).await };
        context.call(slot.caller, request, send).await?;
        Ok(1)
    })
}

/// Publishes data to a channel.
pub(super) async fn send(
    context: &ScenarioContext,
    slot: CallSlot,
    channel: String,
    data: Bytes,
) -> Result<u64, CallFailure> {
    let send = |channel, request| async move { BroadcastServiceClient::new(channel).publish(request).await };
    context.call(slot.caller, message(channel, data), send).await?;
    Ok(1)
}

fn message(channel: String, data: Bytes) -> PublishRequest {
    PublishRequest { channel, data, ..Default::default() }
}
