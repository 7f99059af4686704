//! Errors of the use cases.

use std::fmt;
use std::time::Duration;

use crate::model::FencingToken;
use crate::{leases, store};

/// Error of a use case.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Redis lost its state, and nothing is granted for the given time.
    #[error("quarantine: redis lost its state; leases granted before may still be held")]
    Quarantine(Duration),
    /// The lease expired, was released, or was lost with Redis.
    #[error("lease lost: it expired or was released, or redis lost it")]
    LeaseLost,
    /// The request id names an acquire whose hold, with the given token, is over.
    #[error("the request id belongs to an acquire whose hold is over; use a new one")]
    LeaseOver(FencingToken),
    /// The request id was used for a different acquire.
    #[error("the request id was already used for a different acquire; use a new one")]
    RequestIdReused,
    /// The wait queue of this lock is full.
    #[error("queue full: too many waiters for this lock")]
    QueueFull,
    /// A retry of the same request took over the queue entry.
    #[error("taken over: a retry with the same request id waits in place of this call")]
    TakenOver,
    /// Too many calls wait at this instance.
    #[error("overloaded: too many calls wait at this instance")]
    Overloaded,
    /// This instance is shutting down.
    #[error("draining: this instance is shutting down")]
    Draining,
    /// This instance has no epoch and cannot find one.
    #[error("no epoch: {0}")]
    NoEpoch(NoEpochCause),
    /// Redis failed. The write may have been applied if
    /// [`outcome_unknown`](leases::Error::outcome_unknown) says so.
    #[error("lock state in redis failed")]
    State(#[from] leases::Error),
    /// Postgres failed, and was needed to record the length of the lease.
    #[error("epoch store in postgres failed")]
    Store(#[from] store::Error),
}

/// Reason why an instance cannot find its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEpochCause {
    /// Redis is unavailable, or its incarnation keeps changing.
    RedisUnavailable,
    /// Postgres is unavailable.
    PostgresUnavailable,
    /// Every possible epoch has been opened.
    EpochsExhausted,
}

impl fmt::Display for NoEpochCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RedisUnavailable => "redis is unavailable",
            Self::PostgresUnavailable => "postgres is unavailable",
            Self::EpochsExhausted => "all epochs are used up",
        })
    }
}

impl Error {
    /// Returns true if the failed write may have been applied and has to be cancelled.
    pub(super) fn outcome_unknown(&self) -> bool {
        match self {
            Self::State(error) => error.outcome_unknown(),
            _ => false,
        }
    }
}
