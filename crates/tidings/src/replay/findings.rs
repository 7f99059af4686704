//! What a replay found out, counted.

use std::ops::AddAssign;

use super::difference::Difference;

/// What was counted while sending and reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Users that were there before, or whose first answer was lost.
    pub(super) users_deduplicated: usize,
    /// Messages whose append was acknowledged.
    pub(super) acknowledged: usize,
    /// Those of them that were there before, or whose first answer was lost.
    pub(super) deduplicated: usize,
    /// How often the lock of a conversation was lost while it was sent.
    pub(super) locks_lost: usize,
    /// Messages that were pushed to readers, each counted once for each reader.
    pub(super) pushed: usize,
    /// Messages that were pushed to a reader who had them.
    pub(super) pushed_again: usize,
    /// How often a reader was told that something is missing.
    pub(super) told: usize,
    /// Messages that a reader then read from history.
    pub(super) filled: usize,
    /// Messages read, over all readings.
    pub(super) read_back: usize,
    /// Pages of conversations that came from the cache.
    pub(super) pages_redis: usize,
    /// Pages of conversations that came from Postgres.
    pub(super) pages_postgres: usize,
    /// Users read a second time.
    pub(super) users_read_again: usize,
    /// Those of them that came from the cache.
    pub(super) users_from_cache: usize,
    /// Messages that were acknowledged and are not there.
    pub(super) lost: usize,
    /// Messages that are there and should not be.
    pub(super) doubled: usize,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.users_deduplicated += more.users_deduplicated;
        self.acknowledged += more.acknowledged;
        self.deduplicated += more.deduplicated;
        self.locks_lost += more.locks_lost;
        self.pushed += more.pushed;
        self.pushed_again += more.pushed_again;
        self.told += more.told;
        self.filled += more.filled;
        self.read_back += more.read_back;
        self.pages_redis += more.pages_redis;
        self.pages_postgres += more.pages_postgres;
        self.users_read_again += more.users_read_again;
        self.users_from_cache += more.users_from_cache;
        self.lost += more.lost;
        self.doubled += more.doubled;
    }
}

/// Counts and differences of a piece of work.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What was counted.
    pub(super) tally: Tally,
    /// The first thing that is not as it should be.
    pub(super) first: Option<Difference>,
    /// How many such things there are.
    pub(super) differences: usize,
}

impl Findings {
    /// Notes a difference, if it is one.
    pub(super) fn differ(&mut self, difference: Option<Difference>) {
        self.differences += usize::from(difference.is_some());
        self.first = self.first.take().or(difference);
    }

    /// Adds what further work found.
    pub(super) fn add(&mut self, more: Self) {
        self.tally += more.tally;
        self.differences += more.differences;
        self.first = self.first.take().or(more.first);
    }
}
