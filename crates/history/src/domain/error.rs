//! What can go wrong, in the words of the service.

use crate::model::ConversationId;
use crate::{cache, peer, store};

/// Why a use case, or one item of a batch, failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such conversation.
    #[error("there is no conversation {id}")]
    NoConversation {
        /// Which was asked for.
        id: ConversationId,
    },
    /// The conversation has no such message.
    #[error("there is no message {seq}, the newest is {last_seq}")]
    NoMessage {
        /// Which was asked for.
        seq: i64,
        /// The newest there is.
        last_seq: i64,
    },
    /// The id is another conversation's.
    #[error("the id {id} is taken")]
    IdTaken {
        /// Which.
        id: ConversationId,
    },
    /// The request id names the creation of another conversation.
    #[error("the request id was used for another conversation")]
    RequestIdReused,
    /// The key belongs to a message of another content.
    #[error("the client message id was used for another content, as message {seq}")]
    KeyReused {
        /// The number of that message.
        seq: i64,
    },
    /// The message to be answered is not there.
    #[error("the message to answer is not there, the newest is {last_seq}")]
    NoReplyTarget {
        /// The newest that is.
        last_seq: i64,
    },
    /// Postgres has less than was asked for.
    #[error("the newest message is {last_seq}, below the one asked for")]
    SeqAhead {
        /// The newest there is.
        last_seq: i64,
    },
    /// Postgres failed; after `Ambiguous` a write may have been done.
    #[error("message store failed")]
    Store(#[from] store::Error),
    /// Redis failed where nothing goes on without it: in the relay.
    #[error("tail failed")]
    Tail(#[from] cache::Error),
    /// Broadcast failed; in the relay.
    #[error("broadcast failed")]
    Broadcast(#[from] peer::Error),
    /// The work was cut off; a write may have been done.
    #[error("cut off by a panic or the end of the process")]
    Aborted,
}
