//! What can go wrong, in the words of the service.

use std::fmt;
use std::time::Duration;

use crate::model::Token;
use crate::{leases, store};

/// Why a use case failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Redis lost its data, and nobody is granted anything for so long.
    #[error("redis lost its data, and lost leases may still be believed in")]
    Quarantine(Duration),
    /// The lease is over.
    #[error("the lease is over")]
    LeaseLost,
    /// The hold of the request is over.
    #[error("the request id names an acquire whose hold is over")]
    LeaseOver(Token),
    /// The request id names another acquire.
    #[error("the request id was used for another acquire")]
    RequestIdReused,
    /// Too many wait for this lock.
    #[error("too many wait for this lock")]
    QueueFull,
    /// A repeat has the place in the queue.
    #[error("the same request was sent again, and has the place in the queue")]
    TakenOver,
    /// Too many calls wait here.
    #[error("too many calls wait at this instance")]
    Overloaded,
    /// This instance is shutting down.
    #[error("this instance is shutting down")]
    Draining,
    /// There is no epoch, and what it takes to find it out is away.
    #[error("no epoch, without {0}")]
    NoEpoch(Missing),
    /// Redis failed; what was asked for may have been done if that [`leaves_doubt`](leases::Error::leaves_doubt).
    #[error("lease state failed")]
    State(#[from] leases::Error),
    /// Postgres failed, and was needed for a lease as long as this.
    #[error("epoch store failed")]
    Store(#[from] store::Error),
}

/// What an instance needs to find out the epoch, and does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Redis.
    State,
    /// Postgres.
    Store,
    /// Numbers: all epochs there can be were opened.
    Epochs,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::State => "redis",
            Self::Store => "postgres",
            Self::Epochs => "a number that is left",
        })
    }
}

impl Error {
    /// Whether something may have been done all the same, so that it has to be given up.
    pub(super) fn leaves_doubt(&self) -> bool {
        match self {
            Self::State(error) => error.leaves_doubt(),
            _ => false,
        }
    }
}
