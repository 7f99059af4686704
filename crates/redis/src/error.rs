//! What can go wrong with Redis, told apart by what a caller may conclude.

use redis::RedisError;

use crate::lane::{REFUSES_WRITES, says};

/// Why a call to Redis failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection, or the breaker is open: nothing was sent.
    #[error("redis is away")]
    Away,
    /// No answer came. A question that was not answered is asked elsewhere; a write **may have been done**, or may be done yet,
    /// which [`Written`](crate::Written) says by itself.
    #[error("redis did not answer")]
    Unanswered(#[source] RedisError),
    /// Redis answered that it takes no writes just now (out of memory, a snapshot that failed, a replica, still loading): it
    /// was not done.
    #[error("redis takes no writes")]
    Unwritable(#[source] RedisError),
    /// Redis answered that it would not, or something nobody expects.
    #[error("redis refused")]
    Refused(#[source] RedisError),
}

impl Error {
    pub(crate) fn from_redis(error: RedisError) -> Self {
        if error.is_timeout() || error.is_connection_dropped() || error.is_unrecoverable_error() {
            Self::Unanswered(error)
        } else if REFUSES_WRITES.iter().chain(&["LOADING"]).any(|code| says(&error, code)) {
            Self::Unwritable(error)
        } else {
            Self::Refused(error)
        }
    }
}
