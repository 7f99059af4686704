//! Errors of the use cases.

use tidings_server::Aborted;

use crate::model::ConversationId;
use crate::{cache, peer, store};

/// Failure of a use case, or of one item of a batch.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The conversation does not exist.
    #[error("conversation {id} not found")]
    NoConversation {
        /// Id in the request.
        id: ConversationId,
    },
    /// The conversation has no message with this seq.
    #[error("message {seq} not found: the newest message is {last_seq}")]
    NoMessage {
        /// Seq in the request.
        seq: i64,
        /// Seq of the newest message.
        last_seq: i64,
    },
    /// The id belongs to another conversation.
    #[error("conversation id {id} is taken")]
    IdTaken {
        /// Id in the request.
        id: ConversationId,
    },
    /// The request id was used to create another conversation.
    #[error("request_id was already used for another conversation")]
    RequestIdReused,
    /// The idempotency key belongs to a message with different content.
    #[error("client_message_id was already used for message {seq} with different content")]
    KeyReused {
        /// Seq of that message.
        seq: i64,
    },
    /// The message to reply to does not exist yet.
    #[error("reply target not found: the newest message is {last_seq}")]
    NoReplyTarget {
        /// Seq of the newest message.
        last_seq: i64,
    },
    /// `min_seq` is beyond the newest message in Postgres.
    #[error("min_seq is too high: the newest message is {last_seq}")]
    SeqAhead {
        /// Seq of the newest message.
        last_seq: i64,
    },
    /// Postgres failed. After `Ambiguous` the write may have been committed.
    #[error("message store failed")]
    Store(#[from] store::Error),
    /// Redis failed in the relay, which cannot continue without it.
    #[error("tail update failed")]
    Tail(#[from] cache::Error),
    /// Broadcast failed in the relay.
    #[error("publish to broadcast failed")]
    Broadcast(#[from] peer::Error),
    /// The task of the call ended early. Its write may have been committed.
    #[error("call aborted by a panic or by the end of the process")]
    Aborted,
}

impl From<Aborted> for Error {
    fn from(Aborted: Aborted) -> Self {
        Self::Aborted
    }
}
