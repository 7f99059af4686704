//! Counts and differences that a replay collects.

use std::ops::AddAssign;

use super::difference::Difference;

/// Counts of sending, receiving and reading back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReplayCounts {
    /// Users that existed before, or whose first response was lost.
    pub(super) users_deduplicated: usize,
    /// Messages acknowledged by the service.
    pub(super) acknowledged: usize,
    /// Acknowledged messages that existed before, or whose first response was lost.
    pub(super) deduplicated: usize,
    /// Losses of a conversation's lock while it was sent.
    pub(super) locks_lost: usize,
    /// Messages received by readers, counted once for each reader.
    pub(super) pushed: usize,
    /// Messages received by a reader that already had them.
    pub(super) pushed_again: usize,
    /// Gaps and resets received by readers.
    pub(super) gaps_and_resets: usize,
    /// Messages that readers filled from history after a gap or reset.
    pub(super) filled: usize,
    /// Messages read back, over all passes.
    pub(super) read_back: usize,
    /// Pages of conversations read from a cache.
    pub(super) pages_redis: usize,
    /// Pages of conversations read from Postgres.
    pub(super) pages_postgres: usize,
    /// Users read a second time.
    pub(super) users_read_again: usize,
    /// Users that the second read found in a cache.
    pub(super) users_from_cache: usize,
    /// Acknowledged messages missing when read back.
    pub(super) lost: usize,
    /// Messages read back more often than sent, or never sent.
    pub(super) duplicated: usize,
}

impl AddAssign for ReplayCounts {
    fn add_assign(&mut self, more: Self) {
        self.users_deduplicated += more.users_deduplicated;
        self.acknowledged += more.acknowledged;
        self.deduplicated += more.deduplicated;
        self.locks_lost += more.locks_lost;
        self.pushed += more.pushed;
        self.pushed_again += more.pushed_again;
        self.gaps_and_resets += more.gaps_and_resets;
        self.filled += more.filled;
        self.read_back += more.read_back;
        self.pages_redis += more.pages_redis;
        self.pages_postgres += more.pages_postgres;
        self.users_read_again += more.users_read_again;
        self.users_from_cache += more.users_from_cache;
        self.lost += more.lost;
        self.duplicated += more.duplicated;
    }
}

/// Counts and differences of one phase or of the whole replay.
#[derive(Debug, Default)]
pub(super) struct ReplayFindings {
    pub(super) counts: ReplayCounts,
    /// The first difference.
    pub(super) first: Option<Difference>,
    /// Number of differences.
    pub(super) differences: usize,
}

impl ReplayFindings {
    /// Records a difference, if there is one.
    pub(super) fn record(&mut self, difference: Option<Difference>) {
        self.differences += usize::from(difference.is_some());
        self.first = self.first.take().or(difference);
    }

    /// Adds the findings of another phase.
    pub(super) fn add(&mut self, more: Self) {
        self.counts += more.counts;
        self.differences += more.differences;
        self.first = self.first.take().or(more.first);
    }
}
