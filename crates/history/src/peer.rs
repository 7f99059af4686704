//! The client of the broadcast service, to which the relay publishes.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tidings_client::{Addresses, Caller, Credentials, Endpoints, Policy};
use tidings_proto::broadcast::batch_publish_result::Outcome;
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tidings_proto::broadcast::{self as pb, BatchPublishRequest, PublishRequest};
use tidings_trace::TraceParent;
use tonic::Code;
use uuid::Uuid;

use crate::model::Message;
use crate::wire;

/// Content type of a published message: an encoded `tidings.history.v1.Message`.
const CONTENT_TYPE: &str = "application/x-protobuf;type=tidings.history.v1.Message";
/// Timeout of one attempt: several times what a busy broadcast needs for the largest batch.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Time in which failed attempts are retried: long enough to find another instance. After it, the
/// relay gets the error and retries at its next step.
const RETRY_FOR: Duration = Duration::from_secs(1);

/// A client of the broadcast service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Broadcast {
    caller: Caller,
}

/// Failure to publish messages. Some of them may have been published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Broadcast is unavailable or overloaded: a retry may succeed.
    #[error("broadcast is unavailable")]
    Away(#[source] Box<tidings_client::Error>),
    /// Broadcast fails, either always or because of one of these messages.
    #[error("broadcast failed")]
    Broken(#[source] Box<tidings_client::Error>),
    /// Broadcast refuses one of these messages; a retry would be refused, too.
    #[error("broadcast refused a message: {0}")]
    Refused(String),
    /// Another publisher has used the request id of one of these messages, so it was not published.
    #[error("another publisher used the publish key of a message")]
    KeyTaken,
}

/// A message to publish.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingMessage<'a> {
    /// The message in its current version.
    pub message: &'a Message,
    /// Publish key of its outbox row.
    pub key: Uuid,
    /// Trace in which it is published.
    pub trace_parent: Option<TraceParent>,
}

impl Broadcast {
    /// Creates a client for these addresses and credentials. It connects at the first call.
    pub fn new(addresses: &Addresses, credentials: &Credentials) -> Self {
        let policy = Policy { timeout: TIMEOUT, patience: RETRY_FOR, ..Policy::default() };
        Self { caller: Caller::new(Endpoints::secured(addresses, credentials), policy) }
    }

    /// Publishes messages, each to the channel of its conversation and in its trace.
    /// The messages of one conversation are published in the order given. Broadcast deduplicates a
    /// message that it remembers. The call itself is part of the first trace.
    ///
    /// # Errors
    /// [`Error`]; the messages before the failed one may have been published.
    pub async fn publish(&self, messages: &[OutgoingMessage<'_>]) -> Result<(), Error> {
        if messages.is_empty() {
            return Ok(());
        }
        let request = BatchPublishRequest { requests: messages.iter().map(publish_request).collect() };
        let caller = self.caller.in_trace(messages.iter().find_map(|message| message.trace_parent));
        let send = async |channel, request| BroadcastServiceClient::new(channel).batch_publish(request).await;
        let response = caller.call("BatchPublish", &request, send).await.map_err(classify)?;
        let refusal = response.results.into_iter().find_map(|result| match result.outcome {
            Some(Outcome::Failure(failure)) => Some(failure),
            _ => None,
        });
        match refusal {
            None => Ok(()),
            Some(failure) if failure.reason() == pb::ErrorReason::RequestIdReused => Err(Error::KeyTaken),
            Some(failure) => Err(Error::Refused(failure.message)),
        }
    }
}

/// Builds the request that publishes a message in its current version. The request id is unique to
/// that version, and cannot be guessed.
fn publish_request(outgoing: &OutgoingMessage<'_>) -> PublishRequest {
    let OutgoingMessage { message, key, trace_parent } = outgoing;
    PublishRequest {
        channel: format!("conversation/{}", message.conversation),
        request_id: format!("{}.{}.{}", key.simple(), message.seq, message.edit_version),
        data: Bytes::from(wire::message((*message).clone()).encode_to_vec()),
        content_type: CONTENT_TYPE.to_owned(),
        trace_parent: trace_parent.map(|parent| parent.to_string()).unwrap_or_default(),
        ..PublishRequest::default()
    }
}

fn classify(error: tidings_client::Error) -> Error {
    match &error {
        tidings_client::Error::GaveUp { .. } => Error::Away(Box::new(error)),
        tidings_client::Error::Refused { failure, .. } => match failure.code {
            Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => Error::Refused(failure.to_string()),
            _ => Error::Broken(Box::new(error)),
        },
    }
}
