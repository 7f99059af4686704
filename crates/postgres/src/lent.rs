//! A connection in the hands of one work: back in its pool only after its answer.

use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, Postgres};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::pool::Pool;

/// A lent connection. When it is dropped it goes back, with or without the answer to what was sent last.
///
/// The pool asks a connection that comes back for a sign of life, and waits for it without an end: a Postgres that falls
/// silent would keep every place in the pool that is on its way back. Here the wait has a limit.
pub(crate) struct Lent {
    connection: Option<PoolConnection<Postgres>>,
    patience: Duration,
    pool: Arc<Pool>,
    /// Free again when the connection is.
    place: Option<OwnedSemaphorePermit>,
}

impl Lent {
    /// Lends a connection of a pool, to whoever has a place in a part of it; it has `patience` to come back.
    pub(crate) fn new(
        connection: PoolConnection<Postgres>,
        place: Option<OwnedSemaphorePermit>,
        patience: Duration,
        pool: &Arc<Pool>,
    ) -> Self {
        pool.look();
        Self { connection: Some(connection), patience, pool: Arc::clone(pool), place }
    }

    /// The connection itself.
    #[expect(clippy::expect_used, reason = "it is taken out only by what consumes the lent connection")]
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("not given back yet")
    }

    /// Closes the connection: no answer came, and none is waited for any more.
    pub(crate) fn close(mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.close_on_drop();
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            let (returning, pool) = (timeout(self.patience, connection.return_to_pool()), Arc::clone(&self.pool));
            let place = self.place.take();
            tokio::spawn(async move {
                let _ = returning.await;
                drop(place);
                pool.look();
            });
        }
    }
}
