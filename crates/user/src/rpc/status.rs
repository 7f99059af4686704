//! Conversion of domain errors to statuses; internal causes go to the log only.

use std::time::Duration;

use tidings_proto::user::ErrorReason;
use tidings_service::store_failed;
use tidings_status::Reply;
use tonic::{Code, Status};

use crate::domain::Error;
use crate::wire;

/// Retry delay sent with TOO_MANY_WATCHED: a stream may end at any time. Another instance may
/// accept the call at once.
const WATCH_RETRY_DELAY: Duration = Duration::from_secs(1);

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let reply = |code, reason| Reply::new(code, wire::DOMAIN, ErrorReason::text(reason), message);
        match error {
            Error::NotFound { id } => reply(Code::NotFound, ErrorReason::UserNotFound).resource("user", id.to_string()),
            Error::HandleNotFound { handle } => {
                reply(Code::NotFound, ErrorReason::UserNotFound).resource("handle", handle)
            }
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
            Error::TooManyWatched => reply(Code::ResourceExhausted, ErrorReason::TooManyWatched)
                .quota("watched ids")
                .retry_after(WATCH_RETRY_DELAY),
            Error::Store(fault) => store_failed(wire::DOMAIN, &fault),
            Error::Cache(_) | Error::Aborted => {
                Reply::new(Code::Internal, wire::DOMAIN, ErrorReason::Internal.text(), "internal error").logged(&error)
            }
        }
        .into_status()
    }
}
