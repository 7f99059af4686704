//! A connection in exclusive use; returns to its pool only after the pending response.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokio::sync::OwnedSemaphorePermit;

use crate::connection_pool::Live;

/// A connection taken from a pool; dropping it returns it.
pub(crate) struct PooledConnection {
    live: Option<Live>,
    /// Longest wait for the end of unfinished work.
    patience: Duration,
    /// True if the work has had all its responses.
    is_done: bool,
    /// Permit of a bulkhead, released together with the connection.
    permit: Option<OwnedSemaphorePermit>,
}

impl PooledConnection {
    /// Takes a connection of a pool, with the permit of a bulkhead if it runs in one. The return to
    /// the pool may take `patience`.
    pub(crate) fn new(live: Live, permit: Option<OwnedSemaphorePermit>, patience: Duration) -> Self {
        Self { live: Some(live), patience, is_done: false, permit }
    }

    /// Returns the connection.
    #[expect(clippy::expect_used, reason = "only `close` and `drop` take it, and both consume self")]
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.live.as_mut().expect("not returned yet").connection
    }

    /// Marks the work as done: nothing has to be awaited or rolled back.
    pub(crate) fn mark_done(&mut self) {
        self.is_done = true;
    }

    /// Closes the connection without waiting for a pending response.
    pub(crate) fn close(mut self) {
        self.live = None;
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        let Some(mut live) = self.live.take() else { return };
        // The driver only queues the rollback of a transaction that was dropped.
        let is_clean = !live.connection.is_in_transaction() && !live.connection.should_flush();
        if self.is_done && is_clean {
            return live.put_back();
        }
        let (patience, permit) = (self.patience, self.permit.take());
        tokio::spawn(async move {
            if live.responds_within(patience).await.is_ok() {
                live.put_back();
            }
            drop(permit);
        });
    }
}
