//! Single-flight loads: concurrent readers of one user share one load of Postgres. The same for the
//! owner of a handle.
//!
//! A load is *closed* once nothing can prove that its result is still current when it completes. No
//! caller joins a closed load, so the read of Postgres that follows the closing is recent enough
//! for every caller that has joined.
//!
//! A caller with `min_version` needs a load that started after its call. At most two loads of one
//! user are in flight: one that started too early for some caller, and the next one, whose result
//! usually serves all later callers. 200 concurrent readers with `min_version` cost 2 statements
//! (`a_herd_with_min_version_costs_two_statements`). Without the limit (`LOADS_MAX = usize::MAX`)
//! they cost 200, and fail for lack of connections if Postgres takes 120 ms.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

use crate::domain::Error;
use crate::model::UserRead;

/// Limit of loads of one key in flight.
const LOADS_MAX: usize = 2;

/// Result of a load, shared by all its waiters.
type LoadResult = Result<UserRead, Error>;

/// Loads in flight, by user id or handle.
#[derive(Debug)]
pub(in crate::domain) struct InFlightLoads<K> {
    table: Mutex<LoadTable<K>>,
}

#[derive(Debug)]
struct LoadTable<K> {
    /// Number of the next load.
    next: u64,
    keys: HashMap<K, KeyLoads>,
}

/// Loads of one key.
#[derive(Debug, Default)]
struct KeyLoads {
    /// In ascending order of their numbers.
    in_flight: Vec<LoadWaiter>,
    /// Lowest number that can be joined: loads below it are closed.
    floor: u64,
}

/// A caller's handle to a load in flight.
#[derive(Clone, Debug)]
pub(in crate::domain) struct LoadWaiter {
    /// Loads are numbered in the order in which they start.
    pub(super) number: u64,
    result: watch::Receiver<Option<LoadResult>>,
    filled: Arc<Notify>,
}

/// Outcome of a request to join a load.
#[derive(Debug)]
pub(in crate::domain) enum JoinOutcome<K: Clone + Eq + Hash> {
    /// A load that started late enough is in flight.
    Joined(LoadWaiter),
    /// A new load; the caller runs it as its leader.
    Started(LoadWaiter, LoadLeader<K>),
    /// The limit of loads is reached and all started too early; this is the newest of them.
    AtCapacity(LoadWaiter),
}

/// Held by the task that runs a load. If it is dropped before it completes, the waiters get
/// [`Error::Aborted`].
#[derive(Debug)]
pub(in crate::domain) struct LoadLeader<K: Clone + Eq + Hash> {
    loads: Arc<InFlightLoads<K>>,
    key: K,
    number: u64,
    result: watch::Sender<Option<LoadResult>>,
    /// Notified when Redis reports a change of the cached user; keeps one permit if nothing waits.
    pub(super) filled: Arc<Notify>,
}

impl<K> Default for InFlightLoads<K> {
    fn default() -> Self {
        Self { table: Mutex::new(LoadTable { next: 0, keys: HashMap::new() }) }
    }
}

impl<K: Clone + Eq + Hash> InFlightLoads<K> {
    /// Returns the number that the next load will get.
    pub(in crate::domain) fn next(&self) -> u64 {
        self.lock().next
    }

    /// Joins the newest load of a key if it is open and its number is at least `floor`; otherwise
    /// starts one, up to the limit.
    pub(in crate::domain) fn join_or_start(self: &Arc<Self>, key: &K, floor: u64) -> JoinOutcome<K> {
        let mut table = self.lock();
        let number = table.next;
        let loads = table.keys.entry(key.clone()).or_default();
        if let Some(newest) = loads.in_flight.last() {
            if newest.number >= floor.max(loads.floor) {
                return JoinOutcome::Joined(newest.clone());
            }
            if loads.in_flight.len() == LOADS_MAX {
                return JoinOutcome::AtCapacity(newest.clone());
            }
        }
        let (result, receiver) = watch::channel(None);
        let filled = Arc::new(Notify::new());
        let waiter = LoadWaiter { number, result: receiver, filled: Arc::clone(&filled) };
        loads.in_flight.push(waiter.clone());
        table.next += 1;
        JoinOutcome::Started(waiter, LoadLeader { loads: Arc::clone(self), key: key.clone(), number, result, filled })
    }

    /// Closes all loads of a key that are in flight, because this instance has written it.
    pub(in crate::domain) fn close_all(&self, key: &K) {
        let mut table = self.lock();
        let next = table.next;
        if let Some(loads) = table.keys.get_mut(key) {
            loads.floor = next;
        }
    }

    fn close(&self, key: &K, number: u64) {
        if let Some(loads) = self.lock().keys.get_mut(key) {
            loads.floor = loads.floor.max(number + 1);
        }
    }

    /// Wakes loads that wait for another reader's fill: Redis reports a change of the value.
    pub(in crate::domain) fn notify_filled(&self, key: &K) {
        if let Some(loads) = self.lock().keys.get(key) {
            for load in &loads.in_flight {
                load.filled.notify_one();
            }
        }
    }

    fn remove(&self, key: &K, number: u64) {
        let mut table = self.lock();
        if let Some(loads) = table.keys.get_mut(key) {
            loads.in_flight.retain(|load| load.number != number);
            if loads.in_flight.is_empty() {
                table.keys.remove(key);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, LoadTable<K>> {
        self.table.lock()
    }
}

impl LoadWaiter {
    /// Waits for the result of the load.
    pub(in crate::domain) async fn wait(mut self) -> LoadResult {
        match self.result.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Err(Error::Aborted)),
            Err(_) => Err(Error::Aborted),
        }
    }
}

impl<K: Clone + Eq + Hash> LoadLeader<K> {
    /// The user or handle to load.
    pub(in crate::domain) fn key(&self) -> &K {
        &self.key
    }

    /// Closes the load to further callers.
    pub(super) fn close(&self) {
        self.loads.close(&self.key, self.number);
    }

    /// Removes the load and hands its result to all waiters.
    pub(in crate::domain) fn complete(self, result: LoadResult) {
        self.loads.remove(&self.key, self.number);
        self.result.send_replace(Some(result));
    }
}

impl<K: Clone + Eq + Hash> Drop for LoadLeader<K> {
    fn drop(&mut self) {
        self.loads.remove(&self.key, self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{ReadSource, UserId, UserRecord};

    fn ada() -> UserId {
        UserId::new("ada".to_owned())
    }

    fn read(version: i64) -> UserRead {
        let record = UserRecord::Absent { version };
        UserRead { record, source: ReadSource::Postgres, age: Duration::ZERO, stale: false }
    }

    fn started(outcome: JoinOutcome<UserId>) -> (LoadWaiter, LoadLeader<UserId>) {
        match outcome {
            JoinOutcome::Started(waiter, leader) => (waiter, leader),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_caller_joins_the_load_in_flight_and_gets_its_result() {
        let loads = Arc::new(InFlightLoads::default());
        let (own, leader) = started(loads.join_or_start(&ada(), 0));
        let JoinOutcome::Joined(joined) = loads.join_or_start(&ada(), 0) else { panic!() };

        leader.complete(Ok(read(7)));

        for waiter in [own, joined] {
            assert_eq!(waiter.wait().await.unwrap().record.version(), 7);
        }
        assert!(loads.lock().keys.is_empty(), "the completed load is removed");
        started(loads.join_or_start(&ada(), 0));
    }

    #[tokio::test]
    async fn a_caller_may_ask_for_a_later_load_and_two_is_the_limit() {
        let loads = Arc::new(InFlightLoads::default());
        let (first, leader) = started(loads.join_or_start(&ada(), 0));
        let (second, _next) = started(loads.join_or_start(&ada(), loads.next()));
        assert!(second.number > first.number);
        let JoinOutcome::Joined(joined) = loads.join_or_start(&ada(), 0) else { panic!() };
        assert_eq!(joined.number, second.number, "a caller without a floor joins the newest load");
        let JoinOutcome::AtCapacity(_) = loads.join_or_start(&ada(), loads.next()) else { panic!() };

        leader.complete(Ok(read(1)));

        started(loads.join_or_start(&ada(), loads.next()));
    }

    #[tokio::test]
    async fn a_load_started_before_a_local_write_is_not_joined_after_it() {
        let loads = Arc::new(InFlightLoads::default());
        let (_first, _leader) = started(loads.join_or_start(&ada(), 0));
        loads.close_all(&ada());

        let (second, _next) = started(loads.join_or_start(&ada(), 0));

        let JoinOutcome::Joined(joined) = loads.join_or_start(&ada(), 0) else { panic!() };
        assert_eq!(joined.number, second.number);
    }

    #[tokio::test]
    async fn a_closed_load_completes_for_its_waiters_and_takes_no_others() {
        let loads = Arc::new(InFlightLoads::default());
        let (first, leader) = started(loads.join_or_start(&ada(), 0));
        leader.close();
        let (_second, _next) = started(loads.join_or_start(&ada(), 0));

        leader.complete(Ok(read(1)));

        assert_eq!(first.wait().await.unwrap().record.version(), 1);
        let JoinOutcome::Joined(_) = loads.join_or_start(&ada(), 0) else { panic!("the next load is open") };
    }

    #[tokio::test]
    async fn a_load_whose_leader_is_dropped_fails_and_is_not_joined() {
        let loads = Arc::new(InFlightLoads::default());
        let (waiter, leader) = started(loads.join_or_start(&ada(), 0));
        drop(leader);

        assert!(matches!(waiter.wait().await, Err(Error::Aborted)));
        started(loads.join_or_start(&ada(), 0));
    }
}
