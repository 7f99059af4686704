//! The RPC handlers: each validates the request, calls the domain, and converts the result.

mod deliveries;
mod status;

use std::slice;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tidings_proto::Scope;
use tidings_proto::broadcast::encoded as pb;
use tidings_proto::broadcast::encoded::broadcast_service_server::BroadcastService;
use tidings_server::auth::CallerToken;
use tidings_server::{DrainSignal, StreamEnd, trace_parent};
use tonic::{Request, Response, Status};

use crate::domain::{Error, Hub};
use crate::model::{Published, UnpublishedMessage};
use crate::wire;

/// Implements the contract's `BroadcastService` over the domain.
#[derive(Clone, Debug)]
pub struct Rpc {
    hub: Arc<Hub>,
}

impl Rpc {
    /// Serves the channels of `hub`.
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }
}

#[tonic::async_trait]
impl BroadcastService for Rpc {
    type SubscribeStream = BoxStream<'static, Result<pb::SubscribeResponse, Status>>;

    async fn publish(&self, request: Request<pb::PublishRequest>) -> Result<Response<pb::PublishResponse>, Status> {
        let (cause, token) = (trace_parent(&request), request.extensions().get().cloned());
        let message = wire::publish(request.into_inner(), cause)?;
        check_reserved(token.as_ref(), slice::from_ref(&message), "Publish")?;
        let published = self.hub.publish(&message).await?;
        Ok(Response::new(wire::published(published)))
    }

    async fn batch_publish(
        &self,
        request: Request<pb::BatchPublishRequest>,
    ) -> Result<Response<pb::BatchPublishResponse>, Status> {
        let (cause, token) = (trace_parent(&request), request.extensions().get().cloned());
        let messages = wire::batch_publish(request.into_inner(), cause)?;
        check_reserved(token.as_ref(), &messages, "BatchPublish")?;
        let results = self.hub.publish_all(&messages).await?;
        let results = results.into_iter().map(batch_result).collect::<Result<_, Error>>()?;
        Ok(Response::new(pb::BatchPublishResponse { results }))
    }

    async fn subscribe(
        &self,
        request: Request<pb::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let drain_signal = request.extensions().get().cloned().unwrap_or_else(DrainSignal::never);
        let starts = wire::subscribe(request.into_inner())?;
        let stream_end = StreamEnd::at(drain_signal.reached());
        let frames = self.hub.subscribe(&starts, stream_end).await?;
        let responses = frames.map(|frame| {
            let frame = frame?;
            deliveries::trace(&frame);
            Ok(wire::frame(frame))
        });
        Ok(Response::new(responses.boxed()))
    }

    async fn get_channel(
        &self,
        request: Request<pb::GetChannelRequest>,
    ) -> Result<Response<pb::GetChannelResponse>, Status> {
        let name = wire::get_channel(request.into_inner())?;
        let (state, subscribers) = self.hub.get(&name).await?;
        Ok(Response::new(pb::GetChannelResponse { channel: Some(wire::channel(&name, &state, subscribers)) }))
    }
}

/// Checks that the caller may publish to the channels, some of which belong to a service.
fn check_reserved(token: Option<&CallerToken>, messages: &[UnpublishedMessage], method: &str) -> Result<(), Status> {
    if messages.iter().any(|message| message.channel.is_reserved()) {
        let path = format!("/tidings.broadcast.v1.BroadcastService/{method}");
        CallerToken::require(token, "broadcast", Scope::Relay, &path)?;
    }
    Ok(())
}

/// Converts the result of one batch item. An error that is not the item's own fails the whole call.
fn batch_result(result: Result<Published, Error>) -> Result<pb::BatchPublishResult, Error> {
    match result {
        Ok(published) => Ok(wire::batch_published(published)),
        Err(error @ Error::RequestIdReused { epoch, offset }) => {
            Ok(wire::batch_refused(error.to_string(), epoch, offset))
        }
        Err(error) => Err(error),
    }
}
