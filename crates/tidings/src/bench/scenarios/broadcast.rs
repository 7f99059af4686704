//! The broadcast service, without those who listen.

use std::sync::Arc;

use bytes::Bytes;
use tidings_proto::broadcast::batch_publish_result::Outcome;
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tidings_proto::broadcast::{BatchPublishRequest, GetChannelRequest, PublishFailure, PublishRequest};

use crate::bench::ground::{Ground, calls};
use crate::load::{Call, Fault, Turn};

/// Publishes a message.
pub(super) fn publish(ground: &Arc<Ground>) -> Call {
    calls(ground, async |ground, turn| send(&ground, turn, ground.key(turn), ground.data()).await)
}

/// Publishes a batch of messages to as many channels.
pub(super) fn batch_publish(ground: &Arc<Ground>) -> Call {
    calls(ground, async |ground, turn| {
        let keys = u64::from(ground.shape.keys);
        let requests = ground.batch(turn).map(|number| message(ground.id(number % keys), ground.data())).collect();
        let request = BatchPublishRequest { requests };
        let send = |channel, request| async move { BroadcastServiceClient::new(channel).batch_publish(request).await };
        let results = ground.ask(turn.caller, request, send).await?.results;
        let failure = results.iter().find_map(|result| match &result.outcome {
            Some(Outcome::Failure(failure)) => Some(PublishFailure::reason(failure).as_str_name()),
            _ => None,
        });
        failure.map_or(Ok(results.len() as u64), |reason| Err(Fault::answer(reason)))
    })
}

/// Asks where a channel stands.
pub(super) fn get(ground: &Arc<Ground>) -> Call {
    calls(ground, async |ground, turn| {
        let request = GetChannelRequest { name: ground.key(turn) };
        let send = |channel, request| async move { BroadcastServiceClient::new(channel).get_channel(request).await };
        ground.ask(turn.caller, request, send).await?;
        Ok(1)
    })
}

/// Publishes data to a channel.
pub(super) async fn send(ground: &Ground, turn: Turn, channel: String, data: Bytes) -> Result<u64, Fault> {
    let send = |channel, request| async move { BroadcastServiceClient::new(channel).publish(request).await };
    ground.ask(turn.caller, message(channel, data), send).await?;
    Ok(1)
}

fn message(channel: String, data: Bytes) -> PublishRequest {
    PublishRequest { channel, data, ..Default::default() }
}
