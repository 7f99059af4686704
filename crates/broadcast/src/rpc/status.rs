//! Conversion of domain errors to statuses: which details clients get, and which only the log.

use std::time::Duration;

use tidings_proto::broadcast::ErrorReason;
use tidings_service::state_failed;
use tidings_status::Reply;
use tonic::{Code, Status};

use crate::domain::Error;
use crate::wire;

/// Retry delay for conditions that pass soon, such as a full publish limit or a reconnect to Redis.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let reply = |code, reason: ErrorReason, message: &str| Reply::new(code, wire::DOMAIN, reason.text(), message);
        let message = error.to_string();
        match &error {
            Error::RequestIdReused { epoch, offset } => {
                reply(Code::AlreadyExists, ErrorReason::RequestIdReused, &message)
                    .resource("message", offset.to_string())
                    .with("epoch", epoch)
                    .with("offset", offset)
            }
            Error::Overloaded => reply(Code::ResourceExhausted, ErrorReason::Overloaded, &message)
                .quota("publishes in flight")
                .retry_after(RETRY_AFTER)
                .with("published", &"no"),
            Error::Channel(cause) => state_failed(wire::DOMAIN, cause),
            Error::NotPublished(cause) => state_failed(wire::DOMAIN, cause).with("published", &"no"),
            Error::OutcomeUnknown(cause) => state_failed(wire::DOMAIN, cause).with("published", &"unknown"),
            Error::ReadTimeout(cause) => state_failed(wire::DOMAIN, cause),
            Error::SubscribeTimeout => reply(
                Code::Unavailable,
                ErrorReason::StateAway,
                "redis pub/sub unavailable: timed out subscribing to the channel",
            )
            .retry_after(RETRY_AFTER),
            Error::ReplyCount => reply(Code::Internal, ErrorReason::Internal, "internal error").logged(&error),
        }
        .into_status()
    }
}
