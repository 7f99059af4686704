//! The nouns of the service.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// The shortest lease: a renewal and its repeat fit in, also where the network is slow.
pub const TTL_MIN: Duration = Duration::from_secs(1);
/// The longest lease: as long as this a lock may be lost with a holder that died, and all of them after Redis lost its data.
pub const TTL_MAX: Duration = Duration::from_mins(5);

/// How many bits of a token count within its epoch.
const SEQ_BITS: u32 = 40;

/// The name of a lock, checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockName(String);

/// What names a lease, and the place in the queue before it; nobody can guess it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseId(String);

/// What names one call of AcquireLock: whatever it has in Redis is its own, until a repeat takes it over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallId(String);

/// What names one process that serves locks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InstanceId(String);

/// What Postgres counts: a new one begins when Redis lost its data. From 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(i64);

/// A fencing token: an epoch, and a number that Redis counts within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(i64);

impl LockName {
    /// Takes a text that was checked before.
    pub fn new(checked: String) -> Self {
        Self(checked)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl LeaseId {
    /// Takes a text that was checked before.
    pub fn new(checked: String) -> Self {
        Self(checked)
    }

    /// Makes one.
    pub fn random() -> Self {
        Self(Uuid::new_v4().to_string())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl CallId {
    /// Takes a text that another instance, or this one, made.
    pub fn new(made: String) -> Self {
        Self(made)
    }

    /// Makes one.
    pub fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl InstanceId {
    /// Takes a text that an instance made.
    pub fn new(made: String) -> Self {
        Self(made)
    }

    /// Makes one.
    pub fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Epoch {
    /// The last one there can be: a token is a positive number of 64 bits.
    pub const LAST: Self = Self((1 << (63 - SEQ_BITS)) - 1);

    /// Takes a number that Postgres or Redis gave.
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// As a number.
    pub fn get(self) -> i64 {
        self.0
    }

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Token {
    /// From this number on an epoch is used up. Scripts have the same: the million above it is for what one of them gives.
    pub const SEQ_END: i64 = (1 << SEQ_BITS) - (1 << 20);

    /// The token of a number within an epoch.
    pub fn new(epoch: Epoch, seq: i64) -> Self {
        Self(epoch.0 << SEQ_BITS | seq)
    }

    /// Takes what a caller presents.
    pub fn presented(token: i64) -> Self {
        Self(token)
    }

    /// As a number.
    pub fn get(self) -> i64 {
        self.0
    }

    /// Its epoch.
    pub fn epoch(self) -> Epoch {
        Epoch(self.0 >> SEQ_BITS)
    }

    /// Whether it may have been given by the end of this epoch: epochs and numbers begin with 1.
    pub fn was_possible(self, last: Epoch) -> bool {
        (1..=last.0).contains(&self.epoch().0) && self.seq_in(self.epoch()) > 0
    }

    /// Its number, if it is of this epoch; else 0, which is that of no hold.
    pub fn seq_in(self, epoch: Epoch) -> i64 {
        if self.epoch() == epoch { self.0 & ((1 << SEQ_BITS) - 1) } else { 0 }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How much longer than its holder believes a lease stands: clocks may run 1 % apart, and time may jump by up to 1 s between
/// two scripts without being noticed. Scripts compute the same.
pub fn grace(ttl: Duration) -> Duration {
    Duration::from_secs(1) + ttl / 100
}

/// The name that a caller gave to an acquire.
#[derive(Clone, Debug)]
pub struct RequestName {
    /// The name.
    pub id: String,
    /// A hash of what was asked for: equal for a repeat, different for anything else.
    pub fingerprint: [u8; 16],
}

/// What a caller of AcquireLock wants.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Which lock.
    pub name: LockName,
    /// What the holder calls itself.
    pub owner: String,
    /// How long the lease lasts.
    pub ttl: Duration,
    /// The name of the acquire, if it has one.
    pub request: Option<RequestName>,
    /// When it arrived here.
    pub arrived: Instant,
    /// Until when it waits; `None`: not at all.
    pub until: Option<Instant>,
}

/// What became of it.
#[derive(Clone, Debug)]
pub enum Acquired {
    /// The caller holds the lock.
    Granted(Grant),
    /// Somebody else does, and the caller did not want to wait.
    Held {
        /// Who; nobody if it has just been offered to somebody who waits.
        holder: Option<Holder>,
        /// How many wait.
        waiting: i64,
    },
    /// It was waited for in vain.
    TimedOut {
        /// Who holds it, as far as it is known.
        holder: Option<Holder>,
        /// The place in the queue that was given up, from 1; 0: there was none.
        position: i64,
    },
}

/// A hold.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Its token.
    pub token: Token,
    /// Its lease.
    pub lease_id: LeaseId,
    /// How long that lasted when it began.
    pub lease: Duration,
    /// How long the request had been here when the script was sent that began it.
    pub waited: Duration,
    /// Whether an earlier call had been granted it.
    pub deduplicated: bool,
}

/// Somebody who holds a lock, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// What it calls itself.
    pub owner: String,
    /// Its token.
    pub token: Token,
    /// For how long.
    pub held_for: Duration,
    /// How long it may believe in it.
    pub remaining: Duration,
}

/// Somebody who waits for a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// What it calls itself.
    pub owner: String,
    /// For how long.
    pub waited: Duration,
}

/// A lock as it is now.
#[derive(Clone, Debug)]
pub struct Lock {
    /// Its name.
    pub name: LockName,
    /// Who holds it.
    pub holder: Option<Holder>,
    /// Who waits for it, the first of them.
    pub waiters: Vec<Waiter>,
    /// How many wait for it.
    pub waiter_count: i64,
    /// How long until anybody is granted anything.
    pub quarantine: Duration,
}

/// What a token is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// It is that of the present hold, of which so much is left.
    Current(Duration),
    /// Its hold is over.
    Stale,
    /// It was not given yet.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_a_later_epoch_are_larger_whatever_the_number() {
        let last_of_one = Token::new(Epoch::new(1), (1 << SEQ_BITS) - 1);
        let first_of_two = Token::new(Epoch::new(2), 1);

        assert!(last_of_one < first_of_two);
        assert_eq!((first_of_two.epoch(), first_of_two.seq_in(Epoch::new(2))), (Epoch::new(2), 1));
        assert_eq!(first_of_two.seq_in(Epoch::new(1)), 0);
    }

    #[test]
    fn the_largest_token_is_positive() {
        assert_eq!(Token::new(Epoch::LAST, (1 << SEQ_BITS) - 1).get(), i64::MAX);
    }
}
