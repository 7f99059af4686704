//! The scenario from a publish to its delivery to the last subscriber.

use std::sync::Arc;

use tidings_client::with_timeout;
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tidings_proto::broadcast::subscribe_response::Frame;
use tidings_proto::broadcast::{ChannelStart, SubscribeRequest, SubscribeResponse};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Status, Streaming};

use super::broadcast::send;
use crate::call::{BenchCall, CallFailure, CallSlot};
use crate::context::{ScenarioContext, prepare_each, scenario_call};
use crate::fanout::Fanout;

/// Publishes a message, and waits until the last subscriber has it.
pub(super) async fn subscribe(context: Arc<ScenarioContext>) -> Result<BenchCall, CallFailure> {
    let fanout = Arc::new(Fanout::new(context.callers, context.shape.subscribers.into()));
    let listening =
        prepare_each(context.shape.subscribers.into(), |slot| listen(&context, Arc::clone(&fanout), slot)).await?;
    let listening = Arc::new(listening); // the subscriptions end when the call is dropped
    Ok(scenario_call(&context, move |context, slot| {
        let (fanout, _listening) = (Arc::clone(&fanout), Arc::clone(&listening));
        async move {
            let publish = |data: Vec<u8>| async {
                send(&context, slot, context.id_prefix.clone(), data.into()).await?;
                Ok(())
            };
            let delivered = fanout.deliver(slot, context.text().into_bytes(), publish);
            let timed_out =
                || Status::deadline_exceeded(format!("timeout: not delivered to all within {:?}", context.timeout));
            timeout(context.timeout, delivered).await.map_err(|_| timed_out())?
        }
    }))
}

/// Opens a subscription and waits until it has caught up.
async fn listen(
    context: &ScenarioContext,
    fanout: Arc<Fanout>,
    slot: CallSlot,
) -> Result<AbortOnDropHandle<()>, CallFailure> {
    let endpoint = &context.subscriber_connections[slot.caller % context.subscriber_connections.len()];
    let channels = vec![ChannelStart { channel: context.id_prefix.clone(), start: None }];
    let mut request = Request::new(SubscribeRequest { channels });
    endpoint.authorize(&mut request);
    let begin = async {
        let mut stream = BroadcastServiceClient::new(endpoint.channel()).subscribe(request).await?.into_inner();
        while !matches!(next(&mut stream).await?.frame, Some(Frame::CaughtUp(_))) {}
        Ok(stream)
    };
    let mut stream = with_timeout(context.timeout, begin).await?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        let failure = loop {
            match next(&mut stream).await.map(|response| response.frame) {
                Ok(Some(Frame::Messages(batch))) => {
                    batch.messages.iter().for_each(|message| fanout.received(&message.data));
                }
                Ok(Some(Frame::Gap(_))) => break CallFailure::unexpected("GAP"),
                Ok(Some(Frame::Reset(_))) => break CallFailure::unexpected("RESET"),
                Ok(Some(Frame::Goodbye(_))) => break CallFailure::unexpected("GOODBYE"),
                Ok(Some(Frame::CaughtUp(_) | Frame::Heartbeat(_)) | None) => {}
                Err(status) => break status.into(),
            }
        };
        fanout.fail(failure);
    })))
}

async fn next(stream: &mut Streaming<SubscribeResponse>) -> Result<SubscribeResponse, Status> {
    stream.message().await?.ok_or_else(|| Status::unavailable("the stream has ended"))
}
