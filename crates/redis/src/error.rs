//! What can go wrong with Redis, told apart by what a caller may conclude.

use redis::RedisError;

/// Why a call to Redis failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection: nothing was sent.
    #[error("redis is away")]
    Away,
    /// No answer came: what was sent **may have been done**, or may be done yet.
    #[error("redis did not answer")]
    Unanswered(#[source] RedisError),
    /// Redis answered that it would not, or something nobody expects.
    #[error("redis refused")]
    Refused(#[source] RedisError),
}

impl Error {
    pub(crate) fn from_redis(error: RedisError) -> Self {
        if error.is_timeout() || error.is_connection_dropped() || error.is_unrecoverable_error() {
            Self::Unanswered(error)
        } else {
            Self::Refused(error)
        }
    }
}
