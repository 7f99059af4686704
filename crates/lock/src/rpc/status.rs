//! Domain error -> status: what a caller hears, and what only the log does.

use std::time::Duration;

use tidings_proto::lock::ErrorReason;
use tidings_server::{state_failed, store_failed};
use tidings_status::Reply;
use tonic::{Code, Status};

use crate::domain::{Error, Missing};
use crate::{leases, store, wire};

/// When to try again where too many wait: some of them will have gone.
const CROWDED: Duration = Duration::from_secs(1);

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let said = error.to_string();
        let reply = |code, reason: ErrorReason| Reply::new(code, wire::DOMAIN, reason.as_str_name(), said.clone());
        match &error {
            Error::Quarantine(left) => reply(Code::Unavailable, ErrorReason::Quarantine).retry_after(*left),
            Error::LeaseLost => reply(Code::Aborted, ErrorReason::LeaseLost),
            Error::LeaseOver(token) => {
                reply(Code::FailedPrecondition, ErrorReason::LeaseOver).precondition("request_id").with("token", token)
            }
            Error::RequestIdReused => {
                reply(Code::AlreadyExists, ErrorReason::RequestIdReused).resource("request_id", "")
            }
            Error::QueueFull => {
                reply(Code::ResourceExhausted, ErrorReason::QueueFull).quota("waiters of a lock").retry_after(CROWDED)
            }
            Error::TakenOver => reply(Code::Aborted, ErrorReason::TakenOver),
            Error::Overloaded => {
                reply(Code::ResourceExhausted, ErrorReason::Overloaded).quota("waiting calls").retry_after(CROWDED)
            }
            Error::Draining => reply(Code::Unavailable, ErrorReason::Draining).retry_after(Duration::ZERO),
            Error::NoEpoch(Missing::State) => state_failed(wire::DOMAIN, &tidings_redis::Error::Away),
            Error::NoEpoch(Missing::Store) => store_failed(wire::DOMAIN, &store::Error::Away(None)),
            Error::State(leases::Error::Redis(cause) | leases::Error::Doubtful(cause)) => {
                state_failed(wire::DOMAIN, cause)
            }
            Error::Store(fault) => store_failed(wire::DOMAIN, fault),
            Error::NoEpoch(Missing::Epochs) | Error::State(leases::Error::NoEpoch | leases::Error::Malformed) => {
                Reply::new(Code::Internal, wire::DOMAIN, ErrorReason::Internal.as_str_name(), "internal error")
                    .logged(&error)
            }
        }
        .into_status()
    }
}
