//! The memory of this instance: profiles that Redis has, kept for as long as Redis says when they change.
//!
//! It takes only what Redis answered: what came from Postgres has no key behind it, so nobody would say that it changed. And
//! only within a *term*, from the answer to `CLIENT TRACKING` to the loss of that connection; outside there is nothing here.
//!
//! An answer and the news that it is outdated come over two connections, in any order. So whoever wants to keep an answer
//! takes a [`Ticket`] before the question is sent, and an answer whose user was heard of since is not kept.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::cache::Cached;
use crate::model::{Record, UserId};

/// Users that share one count of what was heard of them: a power of two, many more than calls that run at once.
const SHARDS: usize = 256;
/// What a kept profile takes beside its bytes, about: the entry, and what the memory keeps of each.
const OVERHEAD_BYTES: usize = 512;

/// The memory. It is empty until a term begins.
#[derive(Debug)]
pub struct Near {
    entries: moka::sync::Cache<UserId, Arc<Entry>>,
    hasher: RandomState,
    /// How often something was heard of the users of a shard.
    shards: Box<[Mutex<u64>]>,
    /// The number of the term; 0: there is none.
    term: AtomicU64,
    last: Mutex<Last>,
}

/// The last term.
#[derive(Debug, Default)]
struct Last {
    number: u64,
    reign: Arc<str>,
}

/// A kept answer, which counts only in its term.
#[derive(Debug)]
struct Entry {
    cached: Cached,
    term: u64,
}

/// The right to keep an answer, taken before the question is sent.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    shard: usize,
    heard: u64,
    term: u64,
}

impl Near {
    /// At most about so many bytes of profiles, each for at most `life`.
    pub fn new(bytes: usize, life: Duration) -> Self {
        let weight = |id: &UserId, entry: &Arc<Entry>| weight(id, &entry.cached.record);
        Self {
            entries: moka::sync::Cache::builder().max_capacity(bytes as u64).weigher(weight).time_to_live(life).build(),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            term: AtomicU64::new(0),
            last: Mutex::default(),
        }
    }

    /// Whether changes are heard of.
    pub fn is_live(&self) -> bool {
        self.term.load(Ordering::Acquire) != 0
    }

    /// What is kept of a user.
    pub fn get(&self, id: &UserId) -> Option<Cached> {
        let term = self.term.load(Ordering::Acquire);
        if term == 0 {
            return None;
        }
        let entry = self.entries.get(id)?;
        (entry.term == term).then(|| entry.cached.clone())
    }

    /// The right to keep the answer to a question that is not sent yet; `None` outside a term.
    pub fn ticket(&self, id: &UserId) -> Option<Ticket> {
        let term = self.term.load(Ordering::Acquire);
        if term == 0 {
            return None;
        }
        let shard = self.shard(id);
        Some(Ticket { shard, heard: *self.heard(shard), term })
    }

    /// Keeps what a Redis of this reign answered, unless something was heard of the user, or the term ended, since the
    /// ticket was taken.
    pub fn keep(&self, ticket: Ticket, reign: &Arc<str>, id: &UserId, cached: &Cached) {
        if *self.last().reign != **reign {
            return; // changes of these keys are not told here
        }
        // What is heard meanwhile waits for this shard, and then removes what is inserted here.
        let heard = self.heard(ticket.shard);
        if *heard == ticket.heard && self.term.load(Ordering::Acquire) == ticket.term {
            self.entries.insert(id.clone(), Arc::new(Entry { cached: cached.clone(), term: ticket.term }));
        }
    }

    /// Forgets a user, and what answers to questions about them that were sent already will say.
    pub fn forget(&self, id: &UserId) {
        let mut heard = self.heard(self.shard(id));
        *heard += 1;
        self.entries.invalidate(id);
    }

    /// A term begins: changes of the keys of this reign are heard of.
    pub fn begin(&self, reign: &str) {
        let mut last = self.last();
        last.number += 1;
        last.reign = reign.into();
        self.term.store(last.number, Ordering::Release);
    }

    /// Forgets everybody: what was kept is of another term than what will be.
    pub fn forget_all(&self) {
        let mut last = self.last();
        if self.is_live() {
            last.number += 1;
            self.term.store(last.number, Ordering::Release);
        }
        self.entries.invalidate_all();
    }

    /// The term is over.
    pub fn end(&self) {
        let _last = self.last();
        self.term.store(0, Ordering::Release);
        self.entries.invalidate_all();
    }

    /// How many profiles are kept, and how many bytes they take: about.
    pub fn size(&self) -> (u64, u64) {
        (self.entries.entry_count(), self.entries.weighted_size())
    }

    fn shard(&self, id: &UserId) -> usize {
        usize::try_from(self.hasher.hash_one(id) % SHARDS as u64).unwrap_or_default()
    }

    fn heard(&self, shard: usize) -> MutexGuard<'_, u64> {
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weight(id: &UserId, record: &Record) -> u32 {
    let profile = match record {
        Record::Present(user) => user.bytes.len(),
        Record::Absent { .. } => 0,
    };
    u32::try_from(OVERHEAD_BYTES + 2 * id.as_str().len() + profile).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn ada() -> UserId {
        UserId::new("ada".to_owned())
    }

    fn absent(version: i64) -> Cached {
        Cached { record: Record::Absent { version }, read: SystemTime::now() }
    }

    fn live() -> (Near, Arc<str>) {
        let near = Near::new(1 << 20, Duration::from_mins(1));
        near.begin("reign");
        (near, "reign".into())
    }

    fn version(near: &Near) -> Option<i64> {
        near.get(&ada()).map(|cached| cached.record.version())
    }

    #[test]
    fn what_redis_answered_is_kept_until_it_is_heard_that_it_changed() {
        let (near, reign) = live();
        near.keep(near.ticket(&ada()).unwrap(), &reign, &ada(), &absent(1));
        assert_eq!(version(&near), Some(1));

        near.forget(&ada());
        assert_eq!(version(&near), None);
    }

    #[test]
    fn an_answer_is_not_kept_if_a_change_was_heard_of_since_the_question() {
        let (near, reign) = live();
        let ticket = near.ticket(&ada()).unwrap();
        near.forget(&ada());

        near.keep(ticket, &reign, &ada(), &absent(1));

        assert_eq!(version(&near), None);
    }

    #[test]
    fn an_answer_of_another_term_or_reign_is_not_kept_and_none_outlives_its_term() {
        let (near, reign) = live();
        let old = near.ticket(&ada()).unwrap();
        near.keep(old, &reign, &ada(), &absent(1));
        near.end();
        assert!(near.ticket(&ada()).is_none(), "nothing is kept outside a term");
        assert_eq!(version(&near), None);

        near.begin("reign");
        assert_eq!(version(&near), None, "what was kept before");
        near.keep(old, &reign, &ada(), &absent(1));
        assert_eq!(version(&near), None, "what was asked before");
        near.keep(near.ticket(&ada()).unwrap(), &"other".into(), &ada(), &absent(1));
        assert_eq!(version(&near), None, "what another reign answered");
        near.keep(near.ticket(&ada()).unwrap(), &reign, &ada(), &absent(2));
        assert_eq!(version(&near), Some(2));

        near.forget_all();
        assert_eq!(version(&near), None);
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let near = Near::new(100 * 1024, Duration::from_mins(1));
        near.begin("reign");
        for number in 0..10_000 {
            let id = UserId::new(format!("user-{number}"));
            near.keep(near.ticket(&id).unwrap(), &"reign".into(), &id, &absent(1));
        }
        near.entries.run_pending_tasks();

        let (entries, bytes) = near.size();
        assert!(bytes <= 100 * 1024, "{bytes}");
        assert!((100..=200).contains(&entries), "{entries}");
    }
}
