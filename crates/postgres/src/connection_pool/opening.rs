//! The tasks of a pool: they open connections for its waiters, and check idle ones.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{ConnectionPool, Live, PoolState};
use crate::fault::OpenFailure;

/// Pause after a refusal before the next attempt to connect.
pub(super) const RETRY: Duration = Duration::from_millis(500);
/// First and longest pause between two attempts while callers wait.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(100)];
/// Longest wait for the response of an idle connection that no caller waits for.
const CHECK_LIMIT: Duration = Duration::from_secs(1);

impl ConnectionPool {
    /// Starts as many attempts as waiters need and the size allows; only one after a failure.
    pub(super) fn open_as_needed(self: &Arc<Self>, state: &mut PoolState) {
        if state.closed {
            return;
        }
        let waiters = u32::try_from(state.waiters.len()).unwrap_or(u32::MAX);
        let room = self.size_max.saturating_sub(state.open);
        let wanted = match &state.failure {
            Some((OpenFailure::Refused(_), time)) if time.elapsed() < RETRY => 0,
            Some(_) => waiters.min(room).min(1),
            None => waiters.min(room),
        };
        for _ in state.connecting..wanted {
            state.connecting += 1;
            tokio::spawn(Arc::clone(self).open_one());
        }
    }

    /// Opens a connection. Tries again while callers wait and another attempt may succeed.
    async fn open_one(self: Arc<Self>) {
        let [mut pause, longest] = PAUSES;
        loop {
            let failure = match self.connector.connect().await {
                Ok(connection) => {
                    self.succeeded();
                    self.adopt(connection);
                    // After a failure there were fewer attempts than waiters.
                    self.open_as_needed(&mut self.state.lock());
                    return;
                }
                Err(failure) => failure,
            };
            if !self.failed(&failure) {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    fn succeeded(&self) {
        let mut state = self.state.lock();
        state.connecting -= 1;
        if state.failure.take().is_some() {
            tracing::info!("postgres accepts connections again");
        }
    }

    /// Records a failed attempt. Returns true if this task shall try again.
    fn failed(&self, failure: &OpenFailure) -> bool {
        let mut state = self.state.lock();
        let cause = failure.cause().to_string();
        if state.failure.as_ref().is_none_or(|(previous, _)| previous.cause().to_string() != cause) {
            tracing::warn!(cause, open = state.open, "cannot open a connection to postgres");
        }
        state.failure = Some((failure.clone(), Instant::now()));
        state.waiters.retain(|waiter| !waiter.is_closed());
        let waits = matches!(failure, OpenFailure::Away(_)) && !state.waiters.is_empty();
        if waits && state.connecting == 1 && !state.closed {
            return true;
        }
        state.connecting -= 1;
        let waiters = match failure {
            // Callers wait for the open connections, if there are any.
            OpenFailure::Refused(_) if state.open == 0 => std::mem::take(&mut state.waiters),
            _ => return false,
        };
        drop(state);
        for waiter in waiters {
            let _ = waiter.send(Err(failure.clone()));
        }
        false
    }

    /// Takes the connection that was idle for the longest time, at least for `idle`.
    fn take_idle_for(&self, idle: Duration) -> Option<Live> {
        let mut state = self.state.lock();
        let unusable = state.remove_unusable();
        let oldest = state.idle.iter().position(|live| live.used.elapsed() >= idle);
        let live = oldest.map(|index| state.idle.remove(index));
        drop(state);
        drop(unusable); // takes the lock
        live
    }
}

/// Checks connections that were idle for some time, so that callers do not meet dead ones. Ends
/// with the pool.
pub(super) async fn check_idle(pool: Weak<ConnectionPool>, idle: Duration) {
    loop {
        sleep(idle / 2).await;
        let Some(pool) = pool.upgrade() else { return };
        while let Some(mut live) = pool.take_idle_for(idle / 2) {
            if pool.check(&mut live, CHECK_LIMIT).await {
                pool.hand_out(live);
            }
        }
    }
}
