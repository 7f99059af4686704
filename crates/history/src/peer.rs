//! Broadcast, to which the relay publishes.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tidings_client::{Addresses, Caller, Credentials, Endpoints, Policy};
use tidings_proto::broadcast::batch_publish_result::Outcome;
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tidings_proto::broadcast::{self as pb, BatchPublishRequest, PublishRequest};
use tidings_trace::TraceParent;
use tonic::Code;

use crate::model::Message;
use crate::wire;

/// What the data of a published message are: a `tidings.history.v1.Message`.
const CONTENT_TYPE: &str = "application/x-protobuf;type=tidings.history.v1.Message";
/// How long one attempt may take: several times what a busy broadcast needs for the largest batch.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long attempts are repeated before the relay is told: long enough to find another instance. The relay comes back.
const PATIENCE: Duration = Duration::from_secs(1);

/// The broadcast service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Broadcast {
    caller: Caller,
}

/// Why messages may not have been published. Some of them may have been.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Broadcast is not there, or has no time: the same again may succeed.
    #[error("broadcast does not answer")]
    Away(#[source] Box<tidings_client::Error>),
    /// Broadcast does not work, or not with one of these.
    #[error("broadcast is broken")]
    Broken(#[source] Box<tidings_client::Error>),
    /// Broadcast would never take one of these.
    #[error("broadcast refused: {0}")]
    Refused(String),
}

impl Broadcast {
    /// Broadcast at these addresses, which is shown these credentials; nothing is connected before the first call.
    pub fn new(addresses: &Addresses, credentials: &Credentials) -> Self {
        let policy = Policy { timeout: TIMEOUT, patience: PATIENCE, ..Policy::default() };
        Self { caller: Caller::new(Endpoints::secured(addresses, credentials), policy) }
    }

    /// Publishes messages, each to the channel of its conversation and in the trace given with it, those of one conversation
    /// in the order given; a message that broadcast remembers is not published again. The call is part of the first trace.
    ///
    /// # Errors
    /// [`Error`]; those before the one in question may have been published.
    pub async fn publish(&self, messages: &[(&Message, Option<TraceParent>)]) -> Result<(), Error> {
        if messages.is_empty() {
            return Ok(());
        }
        let request = BatchPublishRequest {
            requests: messages.iter().map(|(message, cause)| publication(message, *cause)).collect(),
        };
        let caller = self.caller.in_trace(messages.iter().find_map(|(_, cause)| *cause));
        let send = async |channel, request| BroadcastServiceClient::new(channel).batch_publish(request).await;
        let answer = caller.call("BatchPublish", &request, send).await.map_err(judge)?;
        let refusal = answer.results.into_iter().find_map(|result| match result.outcome {
            Some(Outcome::Failure(failure)) if failure.reason() != pb::ErrorReason::RequestIdReused => Some(failure),
            _ => None,
        });
        refusal.map_or(Ok(()), |failure| Err(Error::Refused(failure.message)))
    }
}

/// A message as it is now, under a key that is its own for as long as it is not edited.
fn publication(message: &Message, cause: Option<TraceParent>) -> PublishRequest {
    PublishRequest {
        channel: format!("conversation/{}", message.conversation),
        request_id: format!("{}.{}", message.seq, message.edit_version),
        data: Bytes::from(wire::message(message.clone()).encode_to_vec()),
        content_type: CONTENT_TYPE.to_owned(),
        trace_parent: cause.map(|cause| cause.to_string()).unwrap_or_default(),
        ..PublishRequest::default()
    }
}

fn judge(error: tidings_client::Error) -> Error {
    match &error {
        tidings_client::Error::GaveUp { .. } => Error::Away(Box::new(error)),
        tidings_client::Error::Refused { failure, .. } => match failure.code {
            Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => Error::Refused(failure.to_string()),
            _ => Error::Broken(Box::new(error)),
        },
    }
}
