//! What can go wrong, in the words of the service.

use crate::model::Epoch;
use crate::{channels, hub};

/// Why a use case, or one item of a batch, failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request id belongs to a message of another content.
    #[error("the request id was used for another content, as message {offset} of epoch {epoch}")]
    Reused {
        /// The epoch of that message.
        epoch: Epoch,
        /// Its offset.
        offset: i64,
    },
    /// Others publish more than Redis takes: nothing was published.
    #[error("as many messages are on their way to redis as it takes in time")]
    Crowded,
    /// Redis could not be read.
    #[error("channel failed")]
    Channel(#[from] channels::Error),
    /// Nothing was published, and nothing will be.
    #[error("not published")]
    Unpublished(#[source] channels::Error),
    /// Redis did not say what it did: messages may have been published, or may be yet.
    #[error("whether it was published is not known")]
    Doubtful(#[source] channels::Error),
    /// There is no stream, or none any more.
    #[error(transparent)]
    Stream(#[from] hub::Error),
    /// Redis answered for another number of messages than were published.
    #[error("redis answered for another number of messages")]
    Miscounted,
}
