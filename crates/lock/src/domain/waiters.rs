//! Calls that wait at this instance, in order of arrival.
//!
//! A call is registered before its script is sent, so that no notification about it arrives too
//! early. Each waiter has a queue state (queued in Redis, or lost with it) and a mailbox for the
//! next event. The number of waiters is bounded; a call above it is refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Error;
use crate::metrics::Metrics;
use crate::model::{AcquireRequest, CallId, Grant, LeaseId, LockName};

/// The registered waiters.
#[derive(Debug)]
pub(super) struct LocalWaiters {
    max: usize,
    table: Mutex<WaiterTable>,
    /// Notified when a queue entry was lost, or may have been.
    recheck: Notify,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct WaiterTable {
    /// Waiters by their number of arrival.
    waiters: BTreeMap<u64, Waiter>,
    by_call: HashMap<CallId, u64>,
    /// Arrival numbers of the waiters whose queue entries were lost.
    lost: BTreeSet<u64>,
    /// The same as `lost`, by lock.
    lost_by_lock: BTreeSet<(LockName, u64)>,
    arrivals: u64,
}

#[derive(Debug)]
struct Waiter {
    pending: Arc<PendingAcquire>,
    state: QueueState,
    mailbox: Arc<Mailbox>,
}

/// An AcquireLock call and its request.
#[derive(Debug)]
pub(super) struct PendingAcquire {
    /// Random id of the call.
    pub(super) call: CallId,
    /// Id of its lease and queue entry, unless a retry takes over those of an earlier call.
    pub(super) id: LeaseId,
    pub(super) request: AcquireRequest,
}

/// State of a waiter in the wait queue of Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
enum QueueState {
    /// Not queued: its own script is in flight, or its outcome is final.
    Unqueued,
    /// Queued in Redis under this id.
    Queued(LeaseId),
    /// Not queued: Redis lost the entry, or is in quarantine. The next requeue covers it.
    Lost,
}

/// Event for a waiting call.
#[derive(Debug)]
pub(super) enum WaiterEvent {
    /// An offer may be there to claim.
    Offered,
    /// The requeue was granted the lock.
    Granted(Grant),
    /// The wait is over without a grant.
    Failed(Error),
}

#[derive(Debug, Default)]
struct Mailbox {
    event: Mutex<Option<WaiterEvent>>,
    arrived: Notify,
}

impl Mailbox {
    /// Stores an event. An offer never replaces a final event.
    fn put(&self, event: WaiterEvent) {
        let mut slot = self.event.lock();
        if slot.is_none() || !matches!(event, WaiterEvent::Offered) {
            *slot = Some(event);
        }
        drop(slot);
        self.arrived.notify_one();
    }

    fn take(&self) -> Option<WaiterEvent> {
        self.event.lock().take()
    }
}

impl LocalWaiters {
    /// Creates an empty registry for at most `max` waiters.
    pub(super) fn new(max: usize, metrics: Arc<Metrics>) -> Self {
        Self { max, table: Mutex::default(), recheck: Notify::new(), metrics }
    }

    /// Registers a call.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if `max` calls wait already.
    pub(super) fn register(self: &Arc<Self>, pending: &Arc<PendingAcquire>) -> Result<WaiterGuard, Error> {
        let mut table = self.table.lock();
        if table.waiters.len() >= self.max {
            return Err(Error::Overloaded);
        }
        table.arrivals += 1;
        let arrival = table.arrivals;
        let mailbox = Arc::new(Mailbox::default());
        let waiter =
            Waiter { pending: Arc::clone(pending), state: QueueState::Unqueued, mailbox: Arc::clone(&mailbox) };
        table.waiters.insert(arrival, waiter);
        table.by_call.insert(pending.call.clone(), arrival);
        self.metrics.waiters.increment(1);
        Ok(WaiterGuard { waiters: Arc::clone(self), arrival, mailbox })
    }

    /// Sends an event to a call. Returns false if the call is no longer registered.
    pub(super) fn notify(&self, call: &CallId, event: WaiterEvent) -> bool {
        let table = self.table.lock();
        let waiter = table.by_call.get(call).and_then(|arrival| table.waiters.get(arrival));
        waiter.is_some_and(|waiter| {
            waiter.mailbox.put(event);
            true
        })
    }

    /// Sends a final event to a call and excludes it from requeues. Returns false if the call is no
    /// longer registered.
    pub(super) fn finish(&self, call: &CallId, event: WaiterEvent) -> bool {
        self.table.lock().set_state(call, QueueState::Unqueued) && self.notify(call, event)
    }

    /// Records the queue entry of a call. Returns false if the call is no longer registered.
    pub(super) fn set_queued(&self, call: &CallId, id: LeaseId) -> bool {
        self.table.lock().set_state(call, QueueState::Queued(id))
    }

    /// Records the loss of a call's queue entry.
    pub(super) fn set_lost(&self, call: &CallId) {
        self.table.lock().set_state(call, QueueState::Lost);
    }

    /// Returns the queued calls with the ids of their entries, in order of arrival.
    pub(super) fn queued(&self) -> Vec<(Arc<PendingAcquire>, LeaseId)> {
        let table = self.table.lock();
        let queued = table.waiters.values().filter_map(|waiter| match &waiter.state {
            QueueState::Queued(id) => Some((Arc::clone(&waiter.pending), id.clone())),
            QueueState::Unqueued | QueueState::Lost => None,
        });
        queued.collect()
    }

    /// Returns the first `limit` calls without a queue entry, in order of arrival, of one lock or
    /// of all.
    pub(super) fn lost(&self, name: Option<&LockName>, limit: usize) -> Vec<Arc<PendingAcquire>> {
        let table = self.table.lock();
        let pending = |arrival: &u64| table.waiters.get(arrival).map(|waiter| Arc::clone(&waiter.pending));
        match name {
            Some(name) => table.lost_by_lock(name).take(limit).filter_map(pending).collect(),
            None => table.lost.iter().take(limit).filter_map(pending).collect(),
        }
    }

    /// Returns true if a call without a queue entry waits for this lock, or for any.
    pub(super) fn any_lost(&self, name: Option<&LockName>) -> bool {
        let table = self.table.lock();
        !table.lost.is_empty() && name.is_none_or(|name| table.lost_by_lock(name).next().is_some())
    }

    /// Requests a recheck of all waiters.
    pub(super) fn request_recheck(&self) {
        self.recheck.notify_one();
    }

    /// Waits for a requested recheck.
    pub(super) async fn recheck_requested(&self) {
        self.recheck.notified().await;
    }

    /// Removes a waiter, if it is still registered.
    fn unregister(&self, arrival: u64) {
        if self.table.lock().remove(arrival) {
            self.metrics.waiters.decrement(1);
        }
    }
}

impl WaiterTable {
    fn lost_by_lock(&self, name: &LockName) -> impl Iterator<Item = &u64> {
        self.lost_by_lock.range((name.clone(), 0)..=(name.clone(), u64::MAX)).map(|(_, arrival)| arrival)
    }

    fn set_state(&mut self, call: &CallId, state: QueueState) -> bool {
        let Some(&arrival) = self.by_call.get(call) else { return false };
        let Some(waiter) = self.waiters.get_mut(&arrival) else { return false };
        let name = waiter.pending.request.name.clone();
        if state == QueueState::Lost {
            self.lost.insert(arrival);
            self.lost_by_lock.insert((name, arrival));
        } else if waiter.state == QueueState::Lost {
            self.lost.remove(&arrival);
            self.lost_by_lock.remove(&(name, arrival));
        }
        waiter.state = state;
        true
    }

    fn remove(&mut self, arrival: u64) -> bool {
        let Some(waiter) = self.waiters.remove(&arrival) else { return false };
        self.by_call.remove(&waiter.pending.call);
        self.lost.remove(&arrival);
        self.lost_by_lock.remove(&(waiter.pending.request.name.clone(), arrival));
        true
    }
}

/// Registration of a waiter, removed on drop.
#[derive(Debug)]
pub(super) struct WaiterGuard {
    waiters: Arc<LocalWaiters>,
    arrival: u64,
    mailbox: Arc<Mailbox>,
}

impl WaiterGuard {
    /// Waits for the next event. Cancel-safe: no event is lost.
    pub(super) async fn event(&self) -> WaiterEvent {
        loop {
            if let Some(event) = self.mailbox.take() {
                return event;
            }
            self.mailbox.arrived.notified().await;
        }
    }

    /// Returns the id of the queue entry, if the call is queued.
    pub(super) fn queued_id(&self) -> Option<LeaseId> {
        match &self.waiters.table.lock().waiters.get(&self.arrival)?.state {
            QueueState::Queued(id) => Some(id.clone()),
            QueueState::Unqueued | QueueState::Lost => None,
        }
    }

    /// Removes the registration; no requeue touches the call afterwards. Returns an unread event.
    pub(super) fn leave(&self) -> Option<WaiterEvent> {
        self.waiters.unregister(self.arrival);
        self.mailbox.take()
    }
}

impl Drop for WaiterGuard {
    fn drop(&mut self) {
        self.waiters.unregister(self.arrival);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    fn pending(name: &str) -> Arc<PendingAcquire> {
        let request = AcquireRequest {
            name: LockName::new(name.to_owned()),
            owner: "ada".to_owned(),
            ttl: Duration::from_secs(1),
            key: None,
            arrived: Instant::now(),
            wait_until: None,
        };
        Arc::new(PendingAcquire { call: CallId::random(), id: LeaseId::random(), request })
    }

    #[test]
    fn calls_above_the_waiter_limit_are_refused_until_one_leaves() {
        let waiters = Arc::new(LocalWaiters::new(2, Metrics::new()));
        let (_one, other) = (waiters.register(&pending("a")).unwrap(), waiters.register(&pending("a")).unwrap());

        assert!(matches!(waiters.register(&pending("a")), Err(Error::Overloaded)));
        drop(other);
        waiters.register(&pending("a")).unwrap();
    }

    #[test]
    fn lost_waiters_are_returned_in_order_of_arrival() {
        let waiters = Arc::new(LocalWaiters::new(9, Metrics::new()));
        let calls = ["b", "a", "b", "a"].map(pending);
        let guards: Vec<_> = calls.iter().map(|call| waiters.register(call).unwrap()).collect();
        for call in calls.iter().rev() {
            waiters.set_lost(&call.call);
        }
        let order = |name: Option<&str>, limit| {
            let name = name.map(|name| LockName::new(name.to_owned()));
            let lost = waiters.lost(name.as_ref(), limit);
            lost.iter().map(|one| calls.iter().position(|call| call.call == one.call).unwrap()).collect::<Vec<_>>()
        };

        assert_eq!((order(None, 9), order(None, 2)), (vec![0, 1, 2, 3], vec![0, 1]));
        assert_eq!(order(Some("b"), 9), [0, 2]);
        drop(guards);
        assert!(!waiters.any_lost(None));
    }

    #[tokio::test]
    async fn an_offer_replaces_no_final_event() {
        let waiters = Arc::new(LocalWaiters::new(1, Metrics::new()));
        let call = pending("a");
        let guard = waiters.register(&call).unwrap();

        assert!(waiters.notify(&call.call, WaiterEvent::Failed(Error::TakenOver)));
        assert!(waiters.notify(&call.call, WaiterEvent::Offered));
        assert!(matches!(guard.event().await, WaiterEvent::Failed(Error::TakenOver)));
        assert!(guard.leave().is_none());
        assert!(!waiters.notify(&call.call, WaiterEvent::Offered), "the call is no longer registered");
    }
}
