//! Conversion of domain errors to gRPC statuses. Details of internal errors go to the log only.

use tidings_proto::history::ErrorReason;
use tidings_service::store_failed;
use tidings_status::Reply;
use tonic::{Code, Status};

use crate::domain::Error;
use crate::{store, wire};

/// Returns the `ErrorInfo` reason of an error.
pub(super) fn reason(error: &Error) -> ErrorReason {
    match error {
        Error::NoConversation { .. } => ErrorReason::ConversationNotFound,
        Error::NoMessage { .. } => ErrorReason::MessageNotFound,
        Error::IdTaken { .. } => ErrorReason::ConversationIdTaken,
        Error::RequestIdReused => ErrorReason::RequestIdReused,
        Error::KeyReused { .. } => ErrorReason::ClientMessageIdReused,
        Error::NoReplyTarget { .. } => ErrorReason::ReplyTargetNotFound,
        Error::SeqAhead { .. } => ErrorReason::SeqAhead,
        Error::Store(
            store::Error::Away(_) | store::Error::Refused(_) | store::Error::Ambiguous(_) | store::Error::Full(_),
        ) => ErrorReason::StoreAway,
        Error::Store(store::Error::Exhausted | store::Error::Retryable(_)) => ErrorReason::Overloaded,
        Error::Store(store::Error::Unique(_) | store::Error::Other(_))
        | Error::Tail(_)
        | Error::Broadcast(_)
        | Error::Aborted => ErrorReason::Internal,
    }
}

/// Returns the seq that belongs to the failure of an append; 0 if none does.
pub(super) fn seq(error: &Error) -> i64 {
    match error {
        Error::KeyReused { seq } => *seq,
        Error::NoReplyTarget { last_seq } => *last_seq,
        _ => 0,
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let reason = reason(&error);
        let reply = |code, message: &str| Reply::new(code, wire::DOMAIN, reason.text(), message);
        let text = error.to_string();
        match &error {
            Error::NoConversation { id } => reply(Code::NotFound, &text).resource("conversation", id.to_string()),
            Error::NoMessage { seq, last_seq } => {
                reply(Code::NotFound, &text).resource("message", seq.to_string()).with("last_seq", last_seq)
            }
            Error::IdTaken { id } => reply(Code::AlreadyExists, &text).resource("conversation", id.to_string()),
            Error::RequestIdReused => reply(Code::AlreadyExists, &text).resource("request_id", ""),
            Error::KeyReused { seq } => {
                reply(Code::AlreadyExists, &text).resource("message", seq.to_string()).with("seq", seq)
            }
            Error::NoReplyTarget { last_seq } => {
                reply(Code::FailedPrecondition, &text).precondition("reply_to_seq").with("last_seq", last_seq)
            }
            Error::SeqAhead { last_seq } => {
                reply(Code::FailedPrecondition, &text).precondition("min_seq").with("last_seq", last_seq)
            }
            Error::Store(fault) => store_failed(wire::DOMAIN, fault),
            Error::Tail(_) | Error::Broadcast(_) | Error::Aborted => {
                reply(Code::Internal, "internal error").logged(&error)
            }
        }
        .into_status()
    }
}
