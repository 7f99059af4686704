//! A connection in exclusive use; returns to its pool only after the pending response.

use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, Postgres};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::pool::Pool;

/// A connection taken from a pool; dropping it returns it.
///
/// sqlx pings a returned connection and waits for the response without limit: a hanging Postgres
/// would keep the slots of all returning connections. This type limits the wait.
pub(crate) struct PooledConnection {
    connection: Option<PoolConnection<Postgres>>,
    patience: Duration,
    pool: Arc<Pool>,
    /// Permit of a bulkhead, released together with the connection.
    permit: Option<OwnedSemaphorePermit>,
}

impl PooledConnection {
    /// Takes a connection of a pool, with the permit of a bulkhead if it runs in one. The return to
    /// the pool may take `patience`.
    pub(crate) fn new(
        connection: PoolConnection<Postgres>,
        permit: Option<OwnedSemaphorePermit>,
        patience: Duration,
        pool: &Arc<Pool>,
    ) -> Self {
        pool.update_connections();
        Self { connection: Some(connection), patience, pool: Arc::clone(pool), permit }
    }

    /// Returns the connection.
    #[expect(clippy::expect_used, reason = "only `close` and `drop` take it, and both consume self")]
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("not returned yet")
    }

    /// Closes the connection without waiting for a pending response.
    pub(crate) fn close(mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.close_on_drop();
        }
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            let (returning, pool) = (timeout(self.patience, connection.return_to_pool()), Arc::clone(&self.pool));
            let permit = self.permit.take();
            tokio::spawn(async move {
                let _ = returning.await;
                drop(permit);
                pool.update_connections();
            });
        }
    }
}
