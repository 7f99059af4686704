//! Domain error -> status: what a caller hears, and what only the log does.

use std::time::Duration;

use tidings_proto::user::ErrorReason;
use tidings_status::{Reason, Reply};
use tonic::{Code, Status};

use crate::domain::Error;
use crate::{store, wire};

/// When to try again while Postgres is away: it may be back after a restart of some seconds, callers back off besides.
const AWAY: Duration = Duration::from_millis(500);
/// When to try again while all connections are busy.
const BUSY: Duration = Duration::from_millis(100);

#[derive(Clone, Copy)]
struct Because(ErrorReason);

impl Reason for Because {
    const DOMAIN: &'static str = wire::DOMAIN;

    fn name(self) -> &'static str {
        self.0.as_str_name().trim_start_matches("ERROR_REASON_")
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let reply = |code, reason| Reply::new(code, Because(reason), message);
        match error {
            Error::NotFound { id } => reply(Code::NotFound, ErrorReason::UserNotFound).resource("user", id.to_string()),
            Error::IdTaken { id } => {
                reply(Code::AlreadyExists, ErrorReason::UserIdTaken).resource("user", id.to_string())
            }
            Error::HandleTaken { handle } => {
                reply(Code::AlreadyExists, ErrorReason::HandleTaken).resource("handle", handle)
            }
            Error::RequestIdReused => {
                reply(Code::AlreadyExists, ErrorReason::RequestIdReused).resource("request_id", "")
            }
            Error::VersionMismatch { version } => {
                reply(Code::Aborted, ErrorReason::VersionMismatch).with("version", &version)
            }
            Error::VersionAhead { version } => reply(Code::FailedPrecondition, ErrorReason::VersionAhead)
                .with("version", &version)
                .precondition("min_version"),
            Error::Store(fault) => failed_store(&fault),
            Error::Cache(_) | Error::Aborted => {
                Reply::new(Code::Internal, Because(ErrorReason::Internal), "internal error").logged(&error)
            }
        }
        .into_status()
    }
}

fn failed_store(fault: &store::Error) -> Reply {
    match fault {
        store::Error::Away(_) => {
            Reply::new(Code::Unavailable, Because(ErrorReason::StoreAway), "the store does not answer")
                .retry_after(AWAY)
                .logged(fault)
        }
        store::Error::Exhausted | store::Error::Retryable(_) => {
            Reply::new(Code::ResourceExhausted, Because(ErrorReason::Overloaded), "the store is busy")
                .quota("postgres connections")
                .retry_after(BUSY)
                .logged(fault)
        }
        store::Error::Unique(_) | store::Error::Other(_) => {
            Reply::new(Code::Internal, Because(ErrorReason::Internal), "internal error").logged(fault)
        }
    }
}
