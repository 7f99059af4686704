//! The handlers: check, call, answer.

mod deliveries;
mod status;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tidings_proto::broadcast::encoded as pb;
use tidings_proto::broadcast::encoded::broadcast_service_server::BroadcastService;
use tidings_server::Ending;
use tidings_trace::TraceParent;
use tonic::{Request, Response, Status};

use crate::domain::{Broadcasts, Error};
use crate::{hub, wire};

/// The contract over the use cases.
#[derive(Clone, Debug)]
pub struct Rpc {
    broadcasts: Broadcasts,
}

impl Rpc {
    /// The contract over these channels.
    pub fn new(broadcasts: Broadcasts) -> Self {
        Self { broadcasts }
    }
}

#[tonic::async_trait]
impl BroadcastService for Rpc {
    type SubscribeStream = BoxStream<'static, Result<pb::SubscribeResponse, Status>>;

    async fn publish(&self, request: Request<pb::PublishRequest>) -> Result<Response<pb::PublishResponse>, Status> {
        let cause = cause(&request);
        let message = wire::publish(request.into_inner(), cause)?;
        let (epoch, offset, deduplicated) = self.broadcasts.publish_one(message).await?;
        Ok(Response::new(wire::published(epoch, offset, deduplicated)))
    }

    async fn batch_publish(
        &self,
        request: Request<pb::BatchPublishRequest>,
    ) -> Result<Response<pb::BatchPublishResponse>, Status> {
        let cause = cause(&request);
        let messages = wire::batch_publish(request.into_inner(), cause)?;
        let outcomes = self.broadcasts.publish(&messages).await?;
        let results = outcomes.into_iter().map(batch_result).collect::<Result<_, Error>>()?;
        Ok(Response::new(pb::BatchPublishResponse { results }))
    }

    async fn subscribe(
        &self,
        request: Request<pb::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let ending = request.extensions().get().cloned().unwrap_or_else(Ending::never);
        let wishes = wire::subscribe(request.into_inner())?;
        let ending = hub::Ending::at(ending.reached());
        let frames = self.broadcasts.subscribe(&wishes, ending).await?;
        let answers = frames.map(|frame| {
            let frame = frame?;
            deliveries::trace(&frame);
            Ok(wire::frame(frame))
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn get_channel(
        &self,
        request: Request<pb::GetChannelRequest>,
    ) -> Result<Response<pb::GetChannelResponse>, Status> {
        let name = wire::get_channel(request.into_inner())?;
        let (stand, subscribers) = self.broadcasts.get(&name).await?;
        Ok(Response::new(pb::GetChannelResponse { channel: Some(wire::channel(&name, &stand, subscribers)) }))
    }
}

/// The trace that a call is part of, if it is part of one.
fn cause<T>(request: &Request<T>) -> Option<TraceParent> {
    request.extensions().get().copied()
}

/// The result of one item of a batch; an error that is not the item's own is that of the call.
fn batch_result(outcome: Result<crate::domain::Place, Error>) -> Result<pb::BatchPublishResult, Error> {
    match outcome {
        Ok((epoch, offset, deduplicated)) => Ok(wire::batch_published(epoch, offset, deduplicated)),
        Err(error @ Error::Reused { epoch, offset }) => Ok(wire::batch_refused(error.to_string(), epoch, offset)),
        Err(error) => Err(error),
    }
}
