//! The local cache: profiles read from Redis, kept in this process while Redis sends invalidations.
//!
//! It holds only values read from Redis: Redis would not invalidate a value that it does not have.
//! It holds them only during a *tracking session*, from the reply to `CLIENT TRACKING` to the loss
//! of that connection; otherwise it is empty.
//!
//! A hit costs no round trip (`a_read_from_the_local_cache_costs_nothing`). It serves about 1.1
//! times the calls of GetUser and 1.5 times those of BatchGetUsers with 100 users that Redis serves
//! (BENCHMARKS.md, "Reading a cached user").
//!
//! A hit also needs a recent confirmation that no invalidation is missing. A process that was
//! paused (SIGSTOP, a frozen machine) has none when it continues, although its session has not
//! ended yet.
//!
//! A reply and its invalidation arrive over two connections, in any order. Therefore a reader takes
//! an [`InvalidationStamp`] before it sends its request, and the reply is not inserted if the user
//! was invalidated since.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::cache::{CachedRecord, Incarnation};
use crate::model::{UserId, UserRecord};

/// Number of invalidation counters, each shared by many users: far above the number of calls that
/// run in parallel.
const SHARDS: usize = 256;
/// Longest time since the last confirmation. Confirmations come twice a second and take at most a
/// second; plain reads are at most 2 s old.
const CONFIRMATION_TERM: Duration = Duration::from_millis(1750);
/// Approximate bytes of an entry beside its profile.
const OVERHEAD_BYTES: usize = 512;

/// Cache of profiles in this process. It is empty until a tracking session starts.
#[derive(Debug)]
pub struct LocalCache {
    entries: moka::sync::Cache<UserId, Arc<LocalCacheEntry>>,
    hasher: RandomState,
    /// Number of invalidations of the users of each shard.
    shards: Box<[Mutex<u64>]>,
    /// Number of the tracking session; 0 if there is none.
    session: AtomicU64,
    /// Time of the last confirmation, in nanoseconds since `created_at`.
    confirmed: AtomicU64,
    created_at: Instant,
    last_session: Mutex<LastSession>,
}

/// The newest tracking session, which may have ended.
#[derive(Debug, Default)]
struct LastSession {
    number: u64,
    incarnation: Option<Incarnation>,
}

/// A cached reply, valid only during its session.
#[derive(Debug)]
struct LocalCacheEntry {
    cached: CachedRecord,
    session: u64,
}

/// State of invalidations before a request is sent; required to insert the reply.
#[derive(Clone, Copy, Debug)]
pub struct InvalidationStamp {
    shard: usize,
    invalidations: u64,
    session: u64,
}

impl LocalCache {
    /// Creates a cache of approximately `bytes` bytes; an entry lives at most `ttl`.
    pub fn new(bytes: usize, ttl: Duration) -> Self {
        let weight = |id: &UserId, entry: &Arc<LocalCacheEntry>| weight(id, &entry.cached.record);
        Self {
            entries: moka::sync::Cache::builder().max_capacity(bytes as u64).weigher(weight).time_to_live(ttl).build(),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            session: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            created_at: Instant::now(),
            last_session: Mutex::default(),
        }
    }

    /// Returns true during a tracking session.
    pub fn is_tracking(&self) -> bool {
        self.session.load(Ordering::Acquire) != 0
    }

    /// Records that every invalidation before this instant has been received.
    pub fn confirm(&self, instant: Instant) {
        self.confirmed.fetch_max(self.nanos(instant), Ordering::Release);
    }

    /// Returns the cached record of a user, as it was at the last confirmation or later. Returns
    /// `None` if that was more than 1.75 s ago.
    pub fn get(&self, id: &UserId) -> Option<CachedRecord> {
        let session = self.session.load(Ordering::Acquire);
        if session == 0 || !self.is_confirmed(Instant::now()) {
            return None;
        }
        let entry = self.entries.get(id)?;
        (entry.session == session).then(|| entry.cached.clone())
    }

    /// Takes the stamp for a request that is not sent yet; `None` outside a session.
    pub fn stamp(&self, id: &UserId) -> Option<InvalidationStamp> {
        let session = self.session.load(Ordering::Acquire);
        if session == 0 {
            return None;
        }
        let shard = self.shard(id);
        Some(InvalidationStamp { shard, invalidations: *self.invalidations(shard), session })
    }

    /// Inserts the reply of a Redis of this incarnation, unless the user was invalidated, or the
    /// session ended, since the stamp was taken.
    pub fn insert_if_unchanged(
        &self,
        stamp: InvalidationStamp,
        incarnation: &Incarnation,
        id: &UserId,
        cached: &CachedRecord,
    ) {
        if self.last_session.lock().incarnation.as_ref() != Some(incarnation) {
            return; // the session tracks other keys
        }
        // A concurrent invalidation waits for this lock, then removes the entry inserted here.
        let invalidations = self.invalidations(stamp.shard);
        if *invalidations == stamp.invalidations && self.session.load(Ordering::Acquire) == stamp.session {
            let entry = LocalCacheEntry { cached: cached.clone(), session: stamp.session };
            self.entries.insert(id.clone(), Arc::new(entry));
        }
    }

    /// Removes a user, and prevents the insertion of replies to requests already sent.
    pub fn invalidate(&self, id: &UserId) {
        let mut invalidations = self.invalidations(self.shard(id));
        *invalidations += 1;
        self.entries.invalidate(id);
    }

    /// Starts a session, which tracks the keys of this incarnation.
    pub fn start_session(&self, incarnation: &Incarnation) {
        let mut last = self.last_session.lock();
        last.number += 1;
        last.incarnation = Some(incarnation.clone());
        self.session.store(last.number, Ordering::Release);
    }

    /// Removes all users, by starting another session of the same incarnation.
    pub fn invalidate_all(&self) {
        let mut last = self.last_session.lock();
        if self.is_tracking() {
            last.number += 1;
            self.session.store(last.number, Ordering::Release);
        }
        self.entries.invalidate_all();
    }

    /// Ends the session and removes all users.
    pub fn end_session(&self) {
        let _last = self.last_session.lock();
        self.session.store(0, Ordering::Release);
        self.entries.invalidate_all();
    }

    fn is_confirmed(&self, now: Instant) -> bool {
        let age = self.nanos(now).saturating_sub(self.confirmed.load(Ordering::Acquire));
        Duration::from_nanos(age) <= CONFIRMATION_TERM
    }

    fn nanos(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.created_at).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Approximate number of profiles, and of their bytes.
    pub fn size(&self) -> (u64, u64) {
        (self.entries.entry_count(), self.entries.weighted_size())
    }

    fn shard(&self, id: &UserId) -> usize {
        usize::try_from(self.hasher.hash_one(id) % SHARDS as u64).unwrap_or_default()
    }

    fn invalidations(&self, shard: usize) -> MutexGuard<'_, u64> {
        self.shards[shard].lock()
    }
}

fn weight(id: &UserId, record: &UserRecord) -> u32 {
    let profile = match record {
        UserRecord::Present(user) => user.bytes.len(),
        UserRecord::Absent { .. } => 0,
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

    fn absent(version: i64) -> CachedRecord {
        CachedRecord { record: UserRecord::Absent { version }, read_at: SystemTime::now() }
    }

    fn live() -> (LocalCache, Incarnation) {
        let local_cache = LocalCache::new(1 << 20, Duration::from_mins(1));
        local_cache.start_session(&"incarnation".into());
        local_cache.confirm(Instant::now() + Duration::from_mins(1)); // longer than any test takes
        (local_cache, "incarnation".into())
    }

    fn version(local_cache: &LocalCache) -> Option<i64> {
        local_cache.get(&ada()).map(|cached| cached.record.version())
    }

    #[test]
    fn a_redis_reply_is_cached_until_it_is_invalidated() {
        let (local_cache, incarnation) = live();
        local_cache.insert_if_unchanged(local_cache.stamp(&ada()).unwrap(), &incarnation, &ada(), &absent(1));
        assert_eq!(version(&local_cache), Some(1));

        local_cache.invalidate(&ada());
        assert_eq!(version(&local_cache), None);
    }

    #[test]
    fn a_reply_is_not_cached_if_its_key_was_invalidated_meanwhile() {
        let (local_cache, incarnation) = live();
        let stamp = local_cache.stamp(&ada()).unwrap();
        local_cache.invalidate(&ada());

        local_cache.insert_if_unchanged(stamp, &incarnation, &ada(), &absent(1));

        assert_eq!(version(&local_cache), None);
    }

    /// A reply of another session or incarnation is not cached, and no entry outlives its session.
    #[test]
    fn entries_belong_to_one_tracking_session_and_one_incarnation() {
        let (local_cache, incarnation) = live();
        let old = local_cache.stamp(&ada()).unwrap();
        local_cache.insert_if_unchanged(old, &incarnation, &ada(), &absent(1));
        local_cache.end_session();
        assert!(local_cache.stamp(&ada()).is_none(), "nothing is cached outside a session");
        assert_eq!(version(&local_cache), None);

        local_cache.start_session(&"incarnation".into());
        assert_eq!(version(&local_cache), None, "cached in the session before");
        local_cache.insert_if_unchanged(old, &incarnation, &ada(), &absent(1));
        assert_eq!(version(&local_cache), None, "requested in the session before");
        local_cache.insert_if_unchanged(local_cache.stamp(&ada()).unwrap(), &"other".into(), &ada(), &absent(1));
        assert_eq!(version(&local_cache), None, "a reply of another incarnation");
        local_cache.insert_if_unchanged(local_cache.stamp(&ada()).unwrap(), &incarnation, &ada(), &absent(2));
        assert_eq!(version(&local_cache), Some(2));

        local_cache.invalidate_all();
        assert_eq!(version(&local_cache), None);
    }

    #[test]
    fn the_local_cache_stays_within_its_size() {
        let local_cache = LocalCache::new(100 * 1024, Duration::from_mins(1));
        local_cache.start_session(&"incarnation".into());
        for number in 0..10_000 {
            let id = UserId::new(format!("user-{number}"));
            local_cache.insert_if_unchanged(local_cache.stamp(&id).unwrap(), &"incarnation".into(), &id, &absent(1));
        }
        local_cache.entries.run_pending_tasks();

        let (entries, bytes) = local_cache.size();
        assert!(bytes <= 100 * 1024, "{bytes}");
        assert!((100..=200).contains(&entries), "{entries}");
    }

    /// As after a pause of the process.
    #[test]
    fn nothing_is_served_after_the_term_of_a_confirmation() {
        let local_cache = LocalCache::new(1 << 20, Duration::from_mins(1));
        let older = Instant::now();
        let confirmed = older + Duration::from_micros(1);
        local_cache.confirm(confirmed);
        local_cache.confirm(older); // changes nothing

        assert!(local_cache.is_confirmed(confirmed + CONFIRMATION_TERM));
        assert!(!local_cache.is_confirmed(confirmed + CONFIRMATION_TERM + Duration::from_nanos(1)));
        local_cache.confirm(confirmed + Duration::from_secs(9));
        assert!(local_cache.is_confirmed(confirmed + Duration::from_secs(10)));
    }
}
