//! Conversion of domain errors into gRPC statuses; details of failures go to the log only.

use std::time::Duration;

use tidings_proto::lock::ErrorReason;
use tidings_server::ConnectionFull;
use tidings_service::{state_failed, store_failed};
use tidings_status::Reply;
use tonic::{Code, Status};

use crate::domain::{Error, NoEpochCause};
use crate::{leases, store, wire};

/// Retry delay when a queue or an instance is full: by then some waiters have left.
const RETRY_WHEN_FULL: Duration = Duration::from_secs(1);

/// Converts the refusal of a waiting call whose connection has no room for another one.
pub(super) fn connection_full(full: ConnectionFull) -> Status {
    Reply::new(Code::ResourceExhausted, wire::DOMAIN, ErrorReason::Overloaded.text(), full.to_string())
        .quota("long calls per connection")
        .retry_after(RETRY_WHEN_FULL)
        .into_status()
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let reply = |code, reason: ErrorReason| Reply::new(code, wire::DOMAIN, reason.text(), message.clone());
        match &error {
            Error::Quarantine(left) => reply(Code::Unavailable, ErrorReason::Quarantine).retry_after(*left),
            Error::LeaseLost => reply(Code::Aborted, ErrorReason::LeaseLost),
            Error::LeaseOver(token) => {
                reply(Code::FailedPrecondition, ErrorReason::LeaseOver).precondition("request_id").with("token", token)
            }
            Error::RequestIdReused => {
                reply(Code::AlreadyExists, ErrorReason::RequestIdReused).resource("request_id", "")
            }
            Error::QueueFull => reply(Code::ResourceExhausted, ErrorReason::QueueFull)
                .quota("waiters per lock")
                .retry_after(RETRY_WHEN_FULL),
            Error::TakenOver => reply(Code::Aborted, ErrorReason::TakenOver),
            Error::Overloaded => reply(Code::ResourceExhausted, ErrorReason::Overloaded)
                .quota("waiting calls per instance")
                .retry_after(RETRY_WHEN_FULL),
            Error::Draining => {
                reply(Code::Unavailable, ErrorReason::Draining).with("cause", &"shutdown").retry_after(Duration::ZERO)
            }
            Error::NoEpoch(NoEpochCause::RedisUnavailable) => state_failed(wire::DOMAIN, &tidings_redis::Error::Away),
            Error::NoEpoch(NoEpochCause::PostgresUnavailable) => {
                let cause = tidings_postgres::Cause::new("the epoch cannot be read: see the entry postgres of /readyz");
                store_failed(wire::DOMAIN, &store::Error::Away(cause))
            }
            Error::State(leases::Error::Redis(cause) | leases::Error::Unknown(cause)) => {
                state_failed(wire::DOMAIN, cause)
            }
            Error::Store(fault) => store_failed(wire::DOMAIN, fault),
            Error::NoEpoch(NoEpochCause::EpochsExhausted)
            | Error::State(leases::Error::NoEpoch | leases::Error::Malformed) => {
                Reply::new(Code::Internal, wire::DOMAIN, ErrorReason::Internal.text(), "internal error").logged(&error)
            }
        }
        .into_status()
    }
}
