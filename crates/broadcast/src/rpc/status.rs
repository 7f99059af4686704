//! Domain error -> status: what a caller hears, and what only the log does.

use std::time::Duration;

use tidings_proto::broadcast::ErrorReason;
use tidings_server::state_failed;
use tidings_status::Reply;
use tonic::{Code, Status};

use crate::domain::Error;
use crate::{hub, wire};

/// When to try again here what another instance may do now: streams end at any time, and connections are made anew.
const LATER: Duration = Duration::from_secs(1);

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let reply =
            |code, reason: ErrorReason, message: &str| Reply::new(code, wire::DOMAIN, reason.as_str_name(), message);
        let said = error.to_string();
        match &error {
            Error::Reused { epoch, offset } => reply(Code::AlreadyExists, ErrorReason::RequestIdReused, &said)
                .resource("message", offset.to_string())
                .with("epoch", epoch)
                .with("offset", offset),
            Error::Crowded => reply(Code::ResourceExhausted, ErrorReason::Overloaded, &said)
                .quota("messages on their way to redis")
                .retry_after(LATER)
                .with("published", &"no"),
            Error::Channel(cause) | Error::Stream(hub::Error::Channel(cause)) => state_failed(wire::DOMAIN, cause),
            Error::Unpublished(cause) => state_failed(wire::DOMAIN, cause).with("published", &"no"),
            Error::Doubtful(cause) => state_failed(wire::DOMAIN, cause).with("published", &"unknown"),
            Error::Stream(hub::Error::Unread(cause)) => state_failed(wire::DOMAIN, cause),
            Error::Stream(hub::Error::Unheard) => {
                reply(Code::Unavailable, ErrorReason::StateAway, "redis can not be subscribed to").retry_after(LATER)
            }
            Error::Miscounted => reply(Code::Internal, ErrorReason::Internal, "internal error").logged(&error),
        }
        .into_status()
    }
}
