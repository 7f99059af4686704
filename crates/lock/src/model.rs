//! Domain types of the lock service.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// Shortest lease: long enough for a renewal and its retry, also on a slow network.
pub const TTL_MIN: Duration = Duration::from_secs(1);
/// Longest lease. With its grace it bounds the time a lock stays held after its holder died, and
/// the quarantine after Redis lost its state.
pub const TTL_MAX: Duration = Duration::from_mins(5);

/// Bits of a token that count within its epoch.
const SEQ_BITS: u32 = 40;

/// Checked name of a lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockName(String);

/// Unguessable id of a lease, and of the queue entry before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseId(String);

/// Random id of one AcquireLock call, which owns its entries in Redis until a retry takes them
/// over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallId(String);

/// Random id of one process that serves locks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InstanceId(String);

/// Number of an epoch, from 1. Postgres counts it; a new epoch begins when Redis lost its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockEpoch(i64);

/// Fencing token: an epoch, and a sequence number that Redis counts within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FencingToken(i64);

impl LockName {
    /// Wraps a name that was checked before.
    pub fn new(checked: String) -> Self {
        Self(checked)
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl LeaseId {
    /// Wraps an id that was checked before, or that a script returned.
    pub fn new(checked: String) -> Self {
        Self(checked)
    }

    /// Creates a random id.
    pub fn random() -> Self {
        Self(Uuid::new_v4().to_string())
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl CallId {
    /// Wraps an id that an instance created.
    pub fn new(id: String) -> Self {
        Self(id)
    }

    /// Creates a random id.
    pub fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl InstanceId {
    /// Wraps an id that an instance created.
    pub fn new(id: String) -> Self {
        Self(id)
    }

    /// Creates a random id.
    pub fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl LockEpoch {
    /// The last possible epoch: a token is a positive 64-bit number.
    pub const LAST: Self = Self((1 << (63 - SEQ_BITS)) - 1);

    /// Wraps a number from Postgres or Redis.
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// Returns the epoch as a number.
    pub fn get(self) -> i64 {
        self.0
    }

    /// Returns the next epoch.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl FencingToken {
    /// Sequence number at which an epoch is used up; scripts have the same limit. The million
    /// numbers above it are reserved for the grants of a single script.
    pub const SEQ_END: i64 = (1 << SEQ_BITS) - (1 << 20);

    /// Combines an epoch and a sequence number within it.
    pub fn new(epoch: LockEpoch, seq: i64) -> Self {
        Self(epoch.0 << SEQ_BITS | seq)
    }

    /// Wraps a token that a caller presented.
    pub fn presented(token: i64) -> Self {
        Self(token)
    }

    /// Returns the token as a number.
    pub fn get(self) -> i64 {
        self.0
    }

    /// Returns the epoch of the token.
    pub fn epoch(self) -> LockEpoch {
        LockEpoch(self.0 >> SEQ_BITS)
    }

    /// Returns true if the token may have been granted by the end of epoch `last`; epochs and
    /// sequence numbers begin with 1.
    pub fn may_exist_by(self, last: LockEpoch) -> bool {
        (1..=last.0).contains(&self.epoch().0) && self.seq_in(self.epoch()) > 0
    }

    /// Returns the sequence number of a token of this epoch, and 0 otherwise: no hold has number 0.
    pub fn seq_in(self, epoch: LockEpoch) -> i64 {
        if self.epoch() == epoch { self.0 & ((1 << SEQ_BITS) - 1) } else { 0 }
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Time by which a hold in Redis outlasts its holder's deadline. It covers clocks that run 1 %
/// apart, and an unnoticed jump of up to 1 s between two scripts. Scripts compute the same.
pub fn grace(ttl: Duration) -> Duration {
    Duration::from_secs(1) + ttl / 100
}

/// Dedupe key of an acquire.
#[derive(Clone, Debug)]
pub struct RequestKey {
    /// `request_id` of the caller.
    pub id: String,
    /// Hash of the request: equal for a retry, different for any other request.
    pub fingerprint: [u8; 16],
}

/// A checked AcquireLock request.
#[derive(Clone, Debug)]
pub struct AcquireRequest {
    /// Lock to acquire.
    pub name: LockName,
    /// Name that the holder gives itself, for people.
    pub owner: String,
    /// Length of the lease.
    pub ttl: Duration,
    /// Dedupe key, if the caller gave a `request_id`.
    pub key: Option<RequestKey>,
    /// Time of arrival at this instance.
    pub arrived: Instant,
    /// End of the wait; `None` for a request that does not wait.
    pub wait_until: Option<Instant>,
}

/// Outcome of an acquire.
#[derive(Clone, Debug)]
pub enum AcquireOutcome {
    /// The caller holds the lock.
    Granted(Grant),
    /// Another client holds the lock, and the request does not wait.
    Held {
        /// The holder; `None` if the lock has just been offered to a waiter.
        holder: Option<HolderInfo>,
        /// Number of waiters.
        waiting: i64,
    },
    /// The wait ended without a grant.
    TimedOut {
        /// The holder, if it is known.
        holder: Option<HolderInfo>,
        /// Queue position that was given up, from 1; 0 if the call was not queued.
        position: i64,
    },
}

/// A granted hold.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Fencing token of the hold.
    pub token: FencingToken,
    /// Id of its lease.
    pub lease_id: LeaseId,
    /// Length of the lease when it began.
    pub lease: Duration,
    /// Time from the request's arrival to the sending of the script that began the lease.
    pub waited: Duration,
    /// True if an earlier call of the same request was granted this hold.
    pub deduplicated: bool,
}

/// A holder, as other clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderInfo {
    /// Name that the holder gives itself.
    pub owner: String,
    /// Fencing token of the hold.
    pub token: FencingToken,
    /// Time since the grant.
    pub held_for: Duration,
    /// Time until the holder's deadline, if it does not renew.
    pub remaining: Duration,
}

/// A waiter, as other clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaiterInfo {
    /// Name that the waiter gives itself.
    pub owner: String,
    /// Time since its arrival.
    pub waited: Duration,
}

/// A lock at one moment.
#[derive(Clone, Debug)]
pub struct Lock {
    /// Name of the lock.
    pub name: LockName,
    /// The current holder.
    pub holder: Option<HolderInfo>,
    /// The first waiters, in order of arrival.
    pub waiters: Vec<WaiterInfo>,
    /// Number of all waiters.
    pub waiter_count: i64,
    /// Time until the quarantine ends; zero without one.
    pub quarantine: Duration,
}

/// Outcome of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockRelease {
    /// The hold was ended by this release.
    Released,
    /// The hold was over before.
    NotHeld,
}

/// State of a token relative to the current hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// Token of the current hold, with the time until the holder's deadline.
    Current(Duration),
    /// The hold of the token is over.
    Stale,
    /// The token has not been granted yet.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_a_later_epoch_are_always_larger() {
        let last_of_one = FencingToken::new(LockEpoch::new(1), (1 << SEQ_BITS) - 1);
        let first_of_two = FencingToken::new(LockEpoch::new(2), 1);

        assert!(last_of_one < first_of_two);
        assert_eq!((first_of_two.epoch(), first_of_two.seq_in(LockEpoch::new(2))), (LockEpoch::new(2), 1));
        assert_eq!(first_of_two.seq_in(LockEpoch::new(1)), 0);
    }

    #[test]
    fn the_largest_token_is_positive() {
        assert_eq!(FencingToken::new(LockEpoch::LAST, (1 << SEQ_BITS) - 1).get(), i64::MAX);
    }
}
