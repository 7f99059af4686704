//! A pool of connections to one database.
//!
//! Callers wait for a free connection, never for a certain attempt to open one: connections are
//! opened by tasks of their own, with their own limit. If Postgres gives fewer connections than the
//! pool may have, callers share those that it gives.
//!
//! A connection that was lost makes the others suspect: each is checked before its next use. A
//! check without a response condemns all connections that were last used before it.

mod opening;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::cause::Cause;
use crate::connector::Connector;
use crate::fault::{Fault, OpenFailure};
use crate::metrics::Metrics;

/// Longest life of a connection, so that load moves when the servers behind a host name change.
const LIFETIME: Duration = Duration::from_mins(30);
/// Length up to which the queue of callers is not searched for those that have left.
const DEPARTED_MAX: usize = 64;
/// Idle time after which a connection is checked, before its next use at the latest. NAT and
/// firewalls drop idle connections after minutes.
const IDLE_CHECK: Duration = Duration::from_secs(30);

/// Connections to one database, at most `size_max` at a time.
pub(crate) struct ConnectionPool {
    connector: Arc<Connector>,
    size_max: u32,
    /// Longest wait for a connection.
    patience: Duration,
    state: Mutex<PoolState>,
    /// Notified when a connection of a closed pool ends.
    ended: Notify,
    metrics: Metrics,
}

#[derive(Default)]
struct PoolState {
    /// Free connections, the last used one last.
    idle: Vec<Live>,
    /// Callers in order of arrival. It may hold callers that have left: as many as have waited at
    /// once, or [`DEPARTED_MAX`].
    waiters: VecDeque<oneshot::Sender<Result<Live, OpenFailure>>>,
    /// Length of the queue at which those that have left are removed.
    cleanup_at: usize,
    /// Connections in use and free.
    open: u32,
    /// Attempts to open a connection.
    connecting: u32,
    /// The failure of the latest attempt, and its time.
    failure: Option<(OpenFailure, Instant)>,
    /// A connection that was last used before is checked before use.
    suspect_before: Option<Instant>,
    /// A connection that was last used before is closed.
    dead_before: Option<Instant>,
    closed: bool,
}

/// An open connection. It counts for its pool until it is dropped.
pub(crate) struct Live {
    pub(crate) connection: PgConnection,
    born: Instant,
    /// Time of the latest response.
    used: Instant,
    slot: Slot,
}

/// The place of an open connection in its pool, which may end before its connections.
struct Slot(Weak<ConnectionPool>);

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(pool) = self.0.upgrade() else { return };
        let mut state = pool.state.lock();
        state.open -= 1;
        pool.open_as_needed(&mut state);
        drop(state);
        pool.ended.notify_waiters();
    }
}

impl Live {
    /// Returns the connection to its pool.
    pub(crate) fn put_back(mut self) {
        self.used = Instant::now();
        if let Some(pool) = self.slot.0.upgrade() {
            pool.hand_out(self);
            pool.update_connections();
        }
    }

    /// Returns true if Postgres responds within a limit; also ends what was left undone on the
    /// connection.
    pub(crate) async fn responds_within(&mut self, limit: Duration) -> Result<(), Cause> {
        match timeout(limit, self.connection.ping()).await {
            Ok(Ok(())) => {
                self.used = Instant::now();
                Ok(())
            }
            Ok(Err(error)) => Err(Cause::of(&error)),
            Err(_) => Err(Cause::timeout("no response")),
        }
    }
}

/// Result of a look for a free connection.
enum Found {
    Connection(Live),
    Wait(Waiting),
}

/// A caller that waits for a connection. One that was handed to a caller that no longer waits
/// returns to the pool.
struct Waiting {
    receiver: oneshot::Receiver<Result<Live, OpenFailure>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.receiver.close();
        if let Ok(Ok(live)) = self.receiver.try_recv()
            && let Some(pool) = live.slot.0.upgrade()
        {
            pool.hand_out(live);
        }
    }
}

impl ConnectionPool {
    /// Creates an empty pool, and the task that checks its idle connections.
    pub(crate) fn new(connector: Arc<Connector>, size_max: u32, patience: Duration, metrics: Metrics) -> Arc<Self> {
        let pool =
            Arc::new(Self { connector, size_max, patience, state: Mutex::default(), ended: Notify::new(), metrics });
        tokio::spawn(opening::check_idle(Arc::downgrade(&pool), IDLE_CHECK));
        pool
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Takes a connection, and waits for one if none is free.
    ///
    /// # Errors
    /// [`Fault::Exhausted`] if all stay in use; [`Fault::Away`] or [`Fault::Refused`] if there is
    /// none and none can be opened.
    pub(crate) async fn acquire(self: &Arc<Self>) -> Result<Live, Fault> {
        let deadline = Instant::now() + self.patience;
        loop {
            match self.find()? {
                Found::Connection(mut live) => {
                    if self.is_fit(&mut live).await {
                        return Ok(live);
                    }
                }
                Found::Wait(mut waiting) => {
                    return match tokio::time::timeout_at(deadline.into(), &mut waiting.receiver).await {
                        Ok(Ok(handed)) => handed.map_err(Fault::from),
                        Ok(Err(_)) => Err(closed()),
                        Err(_) => Err(self.gave_up()),
                    };
                }
            }
        }
    }

    /// Adds an open connection.
    pub(crate) fn adopt(self: &Arc<Self>, connection: PgConnection) {
        self.state.lock().open += 1;
        let now = Instant::now();
        self.hand_out(Live { connection, born: now, used: now, slot: Slot(Arc::downgrade(self)) });
        self.update_connections();
    }

    /// Takes a free connection, or queues the caller, in one step.
    fn find(self: &Arc<Self>) -> Result<Found, Fault> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(closed());
        }
        let unusable = state.remove_unusable();
        let found = if let Some(live) = state.idle.pop() {
            Ok(Found::Connection(live))
        } else if let Some(failure) = state.lasting_failure() {
            Err(failure.into())
        } else {
            let (sender, receiver) = oneshot::channel();
            state.forget_departed_waiters();
            state.waiters.push_back(sender);
            self.open_as_needed(&mut state);
            Ok(Found::Wait(Waiting { receiver }))
        };
        drop(state);
        drop(unusable); // takes the lock
        found
    }

    /// Checks a connection that may have ended since it was last used.
    async fn is_fit(&self, live: &mut Live) -> bool {
        let suspect = self.state.lock().suspect_before.is_some_and(|suspect| live.used <= suspect);
        if !suspect && live.used.elapsed() < IDLE_CHECK {
            return true;
        }
        self.check(live, self.patience / 2).await
    }

    /// Checks a connection. One without a response condemns those that were last used before it.
    async fn check(&self, live: &mut Live, limit: Duration) -> bool {
        let used = live.used;
        match live.responds_within(limit).await {
            Ok(()) => true,
            Err(cause) => {
                let mut state = self.state.lock();
                state.suspect_before = Some(Instant::now());
                if cause.is_timeout() {
                    state.dead_before = state.dead_before.max(Some(used));
                }
                false
            }
        }
    }

    /// Makes every connection suspect that was not used since now.
    pub(crate) fn suspect(&self) {
        self.state.lock().suspect_before = Some(Instant::now());
    }

    /// Returns the fault of a caller whose patience ended.
    fn gave_up(&self) -> Fault {
        let state = self.state.lock();
        match &state.failure {
            _ if state.open > 0 => Fault::Exhausted,
            Some((failure, _)) => failure.clone().into(),
            None => {
                let patience = humantime::Duration::from(self.patience);
                let cause = Cause::timeout(format!("no connection within {patience}, one is being opened"));
                Fault::Away(cause.at(&self.connector.address()))
            }
        }
    }

    /// Gives a connection to the first waiter, or keeps it.
    fn hand_out(&self, mut live: Live) {
        let mut state = self.state.lock();
        if !state.closed {
            while let Some(waiter) = state.waiters.pop_front() {
                let Err(Ok(returned)) = waiter.send(Ok(live)) else { return };
                live = returned;
            }
            state.idle.push(live);
            return;
        }
        drop(state);
        drop(live); // takes the lock
    }

    /// Updates the gauges of connections.
    pub(crate) fn update_connections(&self) {
        let state = self.state.lock();
        let idle = u32::try_from(state.idle.len()).unwrap_or(u32::MAX);
        self.metrics.update_connections(state.open.saturating_sub(idle), idle);
    }

    /// Refuses all further work, then waits until the connections in use are returned.
    pub(crate) async fn close(&self) {
        let (idle, waiters) = {
            let mut state = self.state.lock();
            state.closed = true;
            (std::mem::take(&mut state.idle), std::mem::take(&mut state.waiters))
        };
        drop(waiters);
        for live in idle {
            let Live { connection, slot, .. } = live;
            let _ = timeout(self.patience, connection.close()).await;
            drop(slot);
        }
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.state.lock().open == 0 {
                return;
            }
            ended.await;
        }
    }
}

impl PoolState {
    /// Removes callers that have left from the queue, each time its length has doubled. Otherwise
    /// it would grow while no connection is handed out.
    fn forget_departed_waiters(&mut self) {
        if self.waiters.len() >= self.cleanup_at.max(DEPARTED_MAX) {
            self.waiters.retain(|waiter| !waiter.is_closed());
            self.cleanup_at = 2 * self.waiters.len();
        }
    }

    /// Removes connections that are too old or condemned.
    fn remove_unusable(&mut self) -> Vec<Live> {
        let dead_before = self.dead_before;
        let unusable =
            |live: &mut Live| live.born.elapsed() > LIFETIME || dead_before.is_some_and(|dead| live.used <= dead);
        self.idle.extract_if(.., unusable).collect()
    }

    /// Returns the failure that answers callers at once: a refusal, for a moment.
    fn lasting_failure(&self) -> Option<OpenFailure> {
        let (failure, time) = self.failure.as_ref()?;
        let lasts = self.open == 0 && time.elapsed() < opening::RETRY && matches!(failure, OpenFailure::Refused(_));
        lasts.then(|| failure.clone())
    }
}

fn closed() -> Fault {
    Fault::Away(Cause::new("the connection pool is closed"))
}

impl fmt::Debug for ConnectionPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionPool").field("size_max", &self.size_max).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Callers come and go while no connection is handed out.
    #[test]
    fn callers_that_have_left_do_not_accumulate() {
        let mut state = PoolState::default();
        let mut waiting = Vec::new();
        let join = |state: &mut PoolState| {
            let (sender, receiver) = oneshot::channel();
            state.forget_departed_waiters();
            state.waiters.push_back(sender);
            receiver
        };
        for _ in 0..200 {
            waiting.push(join(&mut state));
        }

        for _ in 0..100_000 {
            drop(join(&mut state));
            assert!(state.waiters.len() <= 2 * waiting.len());
        }

        assert_eq!(state.waiters.iter().filter(|waiter| !waiter.is_closed()).count(), waiting.len());
        waiting.clear();
        for _ in 0..1_000 {
            drop(join(&mut state));
        }
        assert!(state.waiters.len() <= DEPARTED_MAX, "{}", state.waiters.len());
    }
}
