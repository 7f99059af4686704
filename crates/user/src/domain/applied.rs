//! What writers of this process have told the cache themselves: their relay tells it only to those who watch.
//!
//! A second apply would change no value, but take the lease from a reader that came after the first, who then reads Postgres
//! twice and fills nothing. It is spared only if the cache has answered, in the reign in which the relay would apply.

use std::collections::HashMap;
use std::mem::take;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::UserId;

/// Writes of one generation: while the relay does not catch up, memory stays bounded.
const WRITES_MAX: usize = 10_000;

/// The newest write of each user that the cache has taken, as far as the relay may meet its row still.
#[derive(Debug, Default)]
pub(super) struct Applied(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<UserId, Taken>,
    old: HashMap<UserId, Taken>,
}

/// A version, and the reign of the cache that has taken it.
type Taken = (i64, Arc<str>);

impl Applied {
    /// The cache has taken a write.
    pub(super) fn note(&self, id: &UserId, version: i64, reign: Arc<str>) {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if generations.young.len() >= WRITES_MAX {
            generations.age();
        }
        generations.young.insert(id.clone(), (version, reign));
    }

    /// Whether a cache of this reign has taken this version of a user.
    pub(super) fn has(&self, id: &UserId, version: i64, reign: &Arc<str>) -> bool {
        let generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is = |taken: Option<&Taken>| taken.is_some_and(|taken| (taken.0, &taken.1) == (version, reign));
        is(generations.young.get(id)) || is(generations.old.get(id))
    }

    /// The relay has met every row that there was. A write is noted after its row was committed, so what was noted before the
    /// relay looked, and is not in its way, was relayed by another instance.
    pub(super) fn met_all(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).age();
    }
}

impl Generations {
    /// Forgets what was old, and lets the young be that.
    fn age(&mut self) {
        self.old = take(&mut self.young);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_known_in_its_version_and_reign_until_the_relay_has_met_all_twice() {
        let (applied, ada, reign) = (Applied::default(), UserId::new("ada".to_owned()), "reign".into());
        assert!(!applied.has(&ada, 1, &reign));

        applied.note(&ada, 1, Arc::clone(&reign));
        assert!(applied.has(&ada, 1, &reign));
        assert!(!applied.has(&ada, 2, &reign), "that was written elsewhere");
        assert!(!applied.has(&ada, 1, &"other".into()));

        applied.met_all();
        assert!(applied.has(&ada, 1, &reign), "it may have been noted while the relay was at it");
        applied.met_all();
        assert!(!applied.has(&ada, 1, &reign));
    }

    #[test]
    fn no_more_is_remembered_than_two_generations_however_far_the_relay_is_behind() {
        let applied = Applied::default();
        for number in 0..5 * WRITES_MAX {
            applied.note(&UserId::new(format!("user-{number}")), 1, "reign".into());
        }
        let generations = applied.0.lock().unwrap();
        assert!(generations.young.len() + generations.old.len() <= 2 * WRITES_MAX);
    }
}
