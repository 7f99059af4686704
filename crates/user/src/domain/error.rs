//! Errors of the use cases.

use std::sync::Arc;

use tidings_server::Aborted;

use crate::model::UserId;
use crate::{cache, store};

/// A failed use case. Cheap to clone, because many callers may share one load.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The id belongs to no user, or to a deleted one.
    #[error("there is no user {id}")]
    NotFound {
        /// The requested id.
        id: UserId,
    },
    /// The handle belongs to no user.
    #[error("no user has the handle {handle}")]
    HandleNotFound {
        /// The requested handle, as the caller wrote it.
        handle: String,
    },
    /// The id belongs to another user, or to a deleted one.
    #[error("the id {id} is taken")]
    IdTaken {
        /// The requested id.
        id: UserId,
    },
    /// The handle belongs to another user.
    #[error("the handle {handle} is taken")]
    HandleTaken {
        /// The requested handle, composed.
        handle: String,
    },
    /// The request id names the creation of another user.
    #[error("the request id was already used for another user")]
    RequestIdReused,
    /// The user is not at `expected_version`.
    #[error("the user is at version {version}, not at expected_version")]
    VersionMismatch {
        /// The current version in Postgres.
        version: i64,
    },
    /// The version in Postgres is below `min_version`.
    #[error("the user is at version {version}, below min_version")]
    VersionAhead {
        /// The current version in Postgres.
        version: i64,
    },
    /// The streams of this instance watch as many ids as allowed.
    #[error("limit of watched ids reached on this instance")]
    TooManyWatched,
    /// Postgres failed; after `Ambiguous` a write may have been committed.
    #[error("user store failed")]
    Store(#[source] Arc<store::Error>),
    /// Redis failed in the relay, the only step that requires it.
    #[error("user cache failed")]
    Cache(#[source] Arc<cache::Error>),
    /// The work was interrupted; a write may have been committed.
    #[error("interrupted by a panic or by the end of the process")]
    Aborted,
}

impl Error {
    /// Returns true if Postgres is unavailable.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Store(fault) if fault.is_away())
    }
}

impl From<Aborted> for Error {
    fn from(Aborted: Aborted) -> Self {
        Self::Aborted
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
