//! Errors of the use cases.

use std::sync::Arc;

use crate::channels;
use crate::model::ChannelEpoch;

/// Error of a use case, of one item of a batch, or of a stream that has ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request id belongs to a message with other content.
    #[error("request id already used for other content, as message {offset} of epoch {epoch}")]
    RequestIdReused {
        /// Epoch of that message.
        epoch: ChannelEpoch,
        /// Offset of that message.
        offset: i64,
    },
    /// Too many publishes are in flight to Redis. Nothing was published.
    #[error("overloaded: too many publishes in flight")]
    Overloaded,
    /// Redis could not be read.
    #[error("cannot read the channel from redis")]
    Channel(#[from] channels::Error),
    /// Nothing was published, and nothing will be.
    #[error("not published")]
    NotPublished(#[source] channels::Error),
    /// Redis did not reply: messages may have been published, or may still be.
    #[error("publish outcome unknown: no reply from redis")]
    OutcomeUnknown(#[source] channels::Error),
    /// Redis could not be read for [`HubLimits::patience`](super::HubLimits::patience); the stream
    /// has ended.
    #[error("timed out reading the channel from redis")]
    ReadTimeout(#[source] Arc<channels::Error>),
    /// The channel could not be subscribed in Redis for
    /// [`HubLimits::patience`](super::HubLimits::patience); the stream has ended.
    #[error("timed out subscribing to the channel in redis")]
    SubscribeTimeout,
    /// The number of replies from Redis differs from the number of commands.
    #[error("unexpected number of replies from redis")]
    ReplyCount,
}
