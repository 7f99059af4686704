//! Failures of Redis, classified by what a caller may conclude.

use redis::RedisError;

use crate::unusable::is_denied;

/// Error codes of a server that refuses writes. It would still answer reads, with data that cannot
/// be corrected.
pub(crate) const REFUSES_WRITES: [&str; 4] = [OUT_OF_MEMORY, "READONLY", "MISCONF", "NOREPLICAS"];

/// Error code of a server out of memory. Scripts that free memory are still executed.
pub(crate) const OUT_OF_MEMORY: &str = "OOM";

/// Returns true if the server returned this code for the call, or for one call of a pipeline.
pub(crate) fn has_code(error: &RedisError, code: &str) -> bool {
    error.clone().into_server_errors().is_some_and(|errors| errors.iter().any(|(_, error)| error.code() == code))
}

/// Failure of a call to Redis.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or the circuit breaker is open: nothing was sent.
    #[error("redis is unavailable")]
    Away,
    /// No reply. A read can be retried, or served from elsewhere. A write **may have been applied,
    /// or may still be**, which [`WriteOutcome`](crate::WriteOutcome) makes explicit.
    #[error("redis did not answer")]
    Unanswered(#[source] RedisError),
    /// Redis currently refuses writes (out of memory, failed snapshot, replica, loading): not
    /// applied.
    #[error("redis refuses writes")]
    Unwritable(#[source] RedisError),
    /// The user lacks a permission, or is not known any more. A script **may have been applied** in
    /// part.
    #[error("redis denies a command to this user")]
    Denied(#[source] RedisError),
    /// Any other error reply, or a reply of an unexpected type.
    #[error("unexpected reply from redis")]
    Refused(#[source] RedisError),
}

impl Error {
    /// Returns the words of the server or the network; empty if there are none.
    pub(crate) fn cause(&self) -> String {
        std::error::Error::source(self).map(ToString::to_string).unwrap_or_default()
    }

    /// Logs that a step continues without Redis, and thus without `part`, e.g. `the cache`. A
    /// refusal is a warning, because it is no outage.
    pub fn log_skip(&self, part: &str) {
        match self {
            Self::Refused(cause) | Self::Denied(cause) => {
                tracing::warn!(%cause, "redis refused a command; continuing without {part}");
            }
            Self::Away | Self::Unanswered(_) | Self::Unwritable(_) => {
                tracing::debug!(error = %self, "redis unavailable; continuing without {part}");
            }
        }
    }

    pub(crate) fn from_redis(error: RedisError) -> Self {
        if error.is_timeout() || error.is_connection_dropped() || error.is_unrecoverable_error() {
            Self::Unanswered(error)
        } else if REFUSES_WRITES.iter().chain(&["LOADING"]).any(|code| has_code(&error, code)) {
            Self::Unwritable(error)
        } else if is_denied(&error) {
            Self::Denied(error)
        } else {
            Self::Refused(error)
        }
    }
}
