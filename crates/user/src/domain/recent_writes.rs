//! Outcomes of the applies of this process, until the relay has processed their outbox rows.
//!
//! - *Applied*: the relay only publishes a notification. A second apply would change no value, but
//!   would delete the lease of a later reader, which would then read Postgres twice and fill
//!   nothing. The relay skips it only if Redis has confirmed the first one, in the incarnation in
//!   which it would apply.
//! - *Failed*: Redis may hold an older version, although this instance has acknowledged or returned
//!   the new one. Reads of this instance go to Postgres and apply the result.
//!
//! Both are for correctness. Without *applied*, `the_relay_only_notifies_of_writes_already_applied`
//! and `a_reader_fills_although_the_relay_ran_since_its_lease` fail; without *failed*,
//! `an_unapplied_update_is_seen_at_once_by_its_instance`.

use std::collections::HashMap;
use std::mem::take;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::cache::Incarnation;
use crate::model::UserId;

/// Limit of writes of one kind in one generation: bounds memory while the relay does not catch up.
const WRITES_MAX: usize = 10_000;

/// The newest write of each user, as long as its row may still be in the outbox.
#[derive(Debug, Default)]
pub(super) struct RecentWrites {
    generations: Mutex<Generations>,
    /// True if there may be a failed write. It is false most of the time, which spares readers the
    /// lock.
    any_failed: AtomicBool,
}

#[derive(Debug, Default)]
struct Generations {
    young: Generation,
    old: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    applied: HashMap<UserId, AppliedWrite>,
    failed: HashMap<UserId, i64>,
    /// True if further failed writes were not recorded: any user may be affected.
    overflowed: bool,
}

/// The applied version, and the incarnation of Redis that took it.
type AppliedWrite = (i64, Incarnation);

impl RecentWrites {
    /// Records that Redis took a write.
    pub(super) fn record_applied(&self, id: &UserId, version: i64, incarnation: Incarnation) {
        let mut generations = self.lock();
        let Generations { young, old } = &mut *generations;
        if young.applied.len() >= WRITES_MAX {
            old.applied = take(&mut young.applied);
        }
        young.applied.insert(id.clone(), (version, incarnation));
        for failed in [&mut young.failed, &mut old.failed] {
            if failed.get(id).is_some_and(|failed| *failed <= version) {
                failed.remove(id);
            }
        }
    }

    /// Records that Redis did not take a write, or that the outcome is unknown.
    pub(super) fn record_failed(&self, id: &UserId, version: i64) {
        let young = &mut self.lock().young;
        if young.failed.len() < WRITES_MAX || young.failed.contains_key(id) {
            let newest = young.failed.entry(id.clone()).or_default();
            *newest = version.max(*newest);
        } else {
            young.overflowed = true;
        }
        self.any_failed.store(true, Ordering::Release);
    }

    /// Returns true if Redis, in this incarnation, took this version of a user.
    pub(super) fn is_applied(&self, id: &UserId, version: i64, incarnation: &Incarnation) -> bool {
        let is =
            |write: Option<&AppliedWrite>| write.is_some_and(|write| (write.0, &write.1) == (version, incarnation));
        let generations = self.lock();
        is(generations.young.applied.get(id)) || is(generations.old.applied.get(id))
    }

    /// Returns true if Redis may lack a write that this instance made to the user.
    pub(super) fn cache_may_be_stale(&self, id: &UserId) -> bool {
        let failed = |generation: &Generation| generation.overflowed || generation.failed.contains_key(id);
        self.any_failed.load(Ordering::Acquire) && {
            let generations = self.lock();
            failed(&generations.young) || failed(&generations.old)
        }
    }

    /// Discards the older generation, because the relay has processed every outbox row it found.
    ///
    /// A write is recorded after its row was committed. If it was recorded before the relay read
    /// the outbox, its row was therefore among those found, or was relayed by another instance. A
    /// write of the younger generation may have been recorded later, so it stays for another round.
    pub(super) fn outbox_drained(&self) {
        let mut generations = self.lock();
        generations.old = take(&mut generations.young);
        let Generation { failed, overflowed, .. } = &generations.old;
        self.any_failed.store(*overflowed || !failed.is_empty(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.generations.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ada() -> UserId {
        UserId::new("ada".to_owned())
    }

    /// An applied write is known by version and incarnation, until the relay has drained the outbox
    /// twice.
    #[test]
    fn an_applied_write_is_known_for_two_drained_outboxes() {
        let (writes, incarnation) = (RecentWrites::default(), Incarnation::from("incarnation"));
        assert!(!writes.is_applied(&ada(), 1, &incarnation));

        writes.record_applied(&ada(), 1, incarnation.clone());
        assert!(writes.is_applied(&ada(), 1, &incarnation));
        assert!(!writes.is_applied(&ada(), 2, &incarnation), "another instance wrote that version");
        assert!(!writes.is_applied(&ada(), 1, &"other".into()));

        writes.outbox_drained();
        assert!(writes.is_applied(&ada(), 1, &incarnation), "it may have been recorded while the relay ran");
        writes.outbox_drained();
        assert!(!writes.is_applied(&ada(), 1, &incarnation));
    }

    /// A user stays marked until the failed write, or a newer one, is applied, or the outbox has
    /// been drained twice.
    #[test]
    fn a_failed_write_marks_the_cache_stale_until_it_is_repaired() {
        let (writes, bob) = (RecentWrites::default(), UserId::new("bob".to_owned()));
        writes.record_failed(&ada(), 3);
        assert!(writes.cache_may_be_stale(&ada()) && !writes.cache_may_be_stale(&bob));
        writes.record_applied(&ada(), 2, "incarnation".into());
        assert!(writes.cache_may_be_stale(&ada()), "a late apply of an older version repairs nothing");
        writes.record_applied(&ada(), 3, "incarnation".into());
        assert!(!writes.cache_may_be_stale(&ada()));

        writes.record_failed(&bob, 1);
        writes.outbox_drained();
        assert!(writes.cache_may_be_stale(&bob), "it may have been recorded while the relay ran");
        writes.outbox_drained();
        assert!(!writes.cache_may_be_stale(&bob));
    }

    /// Beyond the limit of failed writes the cache counts as stale for every user.
    #[test]
    fn at_most_two_generations_are_kept_and_overflow_marks_all() {
        let writes = RecentWrites::default();
        for number in 0..5 * WRITES_MAX {
            let id = UserId::new(format!("user-{number}"));
            writes.record_applied(&id, 1, "incarnation".into());
            writes.record_failed(&id, 2);
        }
        assert!(writes.cache_may_be_stale(&ada()), "after an overflow any user may be affected");
        {
            let generations = writes.lock();
            let Generations { young, old } = &*generations;
            assert!(young.applied.len() + old.applied.len() <= 2 * WRITES_MAX);
            assert!(young.failed.len() + old.failed.len() <= 2 * WRITES_MAX);
        }
        writes.outbox_drained();
        writes.outbox_drained();
        assert!(!writes.cache_may_be_stale(&ada()));
    }
}
