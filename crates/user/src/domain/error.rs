//! What can go wrong, in the words of the service.

use std::sync::Arc;

use crate::model::UserId;
use crate::{cache, store};

/// Why a use case failed. Cheap to clone: many may have waited for the same.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// There is no such user.
    #[error("there is no user {id}")]
    NotFound {
        /// Who was asked for.
        id: UserId,
    },
    /// Nobody has this handle.
    #[error("no user has the handle {handle}")]
    HandleNotFound {
        /// Which.
        handle: String,
    },
    /// The id is another user's, or a deleted one's.
    #[error("the id {id} is taken")]
    IdTaken {
        /// Which.
        id: UserId,
    },
    /// The handle is another user's.
    #[error("the handle {handle} is taken")]
    HandleTaken {
        /// Which.
        handle: String,
    },
    /// The request id names the creation of another user.
    #[error("the request id was used for another user")]
    RequestIdReused,
    /// The user is not at the expected version.
    #[error("the user is at version {version}, not at the expected one")]
    VersionMismatch {
        /// The current one.
        version: i64,
    },
    /// Postgres has less than was asked for.
    #[error("the user is at version {version}, below the one asked for")]
    VersionAhead {
        /// The current one.
        version: i64,
    },
    /// All streams together watch as many ids as they may.
    #[error("this instance watches as many ids as it may")]
    TooManyWatched,
    /// Postgres failed; after `Ambiguous` a write may have been done.
    #[error("user store failed")]
    Store(#[source] Arc<store::Error>),
    /// Redis failed where nothing goes on without it: in the relay.
    #[error("user cache failed")]
    Cache(#[source] Arc<cache::Error>),
    /// The work was cut off; a write may have been done.
    #[error("cut off by a panic or the end of the process")]
    Aborted,
}

impl Error {
    /// Whether Postgres does not answer.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Store(fault) if fault.is_away())
    }
}

impl From<store::Error> for Error {
    fn from(fault: store::Error) -> Self {
        Self::Store(Arc::new(fault))
    }
}

impl From<cache::Error> for Error {
    fn from(error: cache::Error) -> Self {
        Self::Cache(Arc::new(error))
    }
}
