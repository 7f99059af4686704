//! What became of the writes of this process on their way to the cache, until the relay has met their rows.
//!
//! - *Applied*: the relay tells only those who watch. A second apply would change no value, but take the lease from a reader that
//!   came after the first, who then reads Postgres twice and fills nothing. It is spared only if the cache has answered, in the
//!   reign in which the relay would apply.
//! - *Missed*: the cache may answer with what was before, though this instance has acknowledged, or shown, what is now. Readers
//!   here ask Postgres, and apply what they find.

use std::collections::HashMap;
use std::mem::take;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::UserId;

/// Writes of one kind and generation: while the relay does not catch up, memory stays bounded.
const WRITES_MAX: usize = 10_000;

/// The newest write of each user, as far as the relay may meet its row still.
#[derive(Debug, Default)]
pub(super) struct Writes {
    generations: Mutex<Generations>,
    /// Whether there may be one that was missed: most often not.
    any_missed: AtomicBool,
}

#[derive(Debug, Default)]
struct Generations {
    young: Generation,
    old: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    applied: HashMap<UserId, Taken>,
    missed: HashMap<UserId, i64>,
    /// More were missed than are remembered: it may be anybody.
    anybody: bool,
}

/// A version, and the reign of the cache that has taken it.
type Taken = (i64, Arc<str>);

impl Writes {
    /// The cache has taken a write.
    pub(super) fn applied(&self, id: &UserId, version: i64, reign: Arc<str>) {
        let mut generations = self.lock();
        let Generations { young, old } = &mut *generations;
        if young.applied.len() >= WRITES_MAX {
            old.applied = take(&mut young.applied);
        }
        young.applied.insert(id.clone(), (version, reign));
        for missed in [&mut young.missed, &mut old.missed] {
            if missed.get(id).is_some_and(|missed| *missed <= version) {
                missed.remove(id);
            }
        }
    }

    /// The cache has not taken a write, or nobody knows.
    pub(super) fn missed(&self, id: &UserId, version: i64) {
        let young = &mut self.lock().young;
        if young.missed.len() < WRITES_MAX || young.missed.contains_key(id) {
            let newest = young.missed.entry(id.clone()).or_default();
            *newest = version.max(*newest);
        } else {
            young.anybody = true;
        }
        self.any_missed.store(true, Ordering::Release);
    }

    /// Whether a cache of this reign has taken this version of a user.
    pub(super) fn has(&self, id: &UserId, version: i64, reign: &Arc<str>) -> bool {
        let is = |taken: Option<&Taken>| taken.is_some_and(|taken| (taken.0, &taken.1) == (version, reign));
        let generations = self.lock();
        is(generations.young.applied.get(id)) || is(generations.old.applied.get(id))
    }

    /// Whether the cache may not have heard of a write of a user that was made here.
    pub(super) fn is_missed(&self, id: &UserId) -> bool {
        let missed = |generation: &Generation| generation.anybody || generation.missed.contains_key(id);
        self.any_missed.load(Ordering::Acquire) && {
            let generations = self.lock();
            missed(&generations.young) || missed(&generations.old)
        }
    }

    /// The relay has met every row that there was. A write is noted after its row was committed: what was noted before the relay
    /// looked was among them, or was relayed by another instance.
    pub(super) fn met_all(&self) {
        let mut generations = self.lock();
        generations.old = take(&mut generations.young);
        let Generation { missed, anybody, .. } = &generations.old;
        self.any_missed.store(*anybody || !missed.is_empty(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ada() -> UserId {
        UserId::new("ada".to_owned())
    }

    #[test]
    fn a_write_is_known_in_its_version_and_reign_until_the_relay_has_met_all_twice() {
        let (writes, reign) = (Writes::default(), "reign".into());
        assert!(!writes.has(&ada(), 1, &reign));

        writes.applied(&ada(), 1, Arc::clone(&reign));
        assert!(writes.has(&ada(), 1, &reign));
        assert!(!writes.has(&ada(), 2, &reign), "that was written elsewhere");
        assert!(!writes.has(&ada(), 1, &"other".into()));

        writes.met_all();
        assert!(writes.has(&ada(), 1, &reign), "it may have been noted while the relay was at it");
        writes.met_all();
        assert!(!writes.has(&ada(), 1, &reign));
    }

    #[test]
    fn a_write_that_was_missed_is_so_until_it_or_a_newer_one_is_applied_or_the_relay_has_met_all_twice() {
        let (writes, bob) = (Writes::default(), UserId::new("bob".to_owned()));
        writes.missed(&ada(), 3);
        assert!(writes.is_missed(&ada()) && !writes.is_missed(&bob));
        writes.applied(&ada(), 2, "reign".into());
        assert!(writes.is_missed(&ada()), "an older one came late");
        writes.applied(&ada(), 3, "reign".into());
        assert!(!writes.is_missed(&ada()));

        writes.missed(&bob, 1);
        writes.met_all();
        assert!(writes.is_missed(&bob), "it may have been noted while the relay was at it");
        writes.met_all();
        assert!(!writes.is_missed(&bob));
    }

    #[test]
    fn no_more_is_remembered_than_two_generations_and_of_the_rest_it_is_said_that_it_may_be_anybody() {
        let writes = Writes::default();
        for number in 0..5 * WRITES_MAX {
            let id = UserId::new(format!("user-{number}"));
            writes.applied(&id, 1, "reign".into());
            writes.missed(&id, 2);
        }
        assert!(writes.is_missed(&ada()), "who knows");
        {
            let generations = writes.lock();
            let Generations { young, old } = &*generations;
            assert!(young.applied.len() + old.applied.len() <= 2 * WRITES_MAX);
            assert!(young.missed.len() + old.missed.len() <= 2 * WRITES_MAX);
        }
        writes.met_all();
        writes.met_all();
        assert!(!writes.is_missed(&ada()));
    }
}
