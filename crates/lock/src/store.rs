//! Postgres: the epochs, so that tokens grow even when Redis loses its state.

mod epochs;

pub use epochs::{Epochs, NewEpoch, Row};
pub use tidings_postgres::Fault as Error;

/// Tables of the lock service.
#[derive(Clone, Debug)]
pub struct Store {
    /// Access to the table `lock_epoch`.
    pub epochs: Epochs,
    postgres: tidings_postgres::Postgres,
}

impl Store {
    /// Creates access to the tables of one database.
    pub fn new(postgres: tidings_postgres::Postgres) -> Self {
        Self { epochs: Epochs::new(postgres.clone()), postgres }
    }

    /// Closes all connections, after the work in progress.
    pub async fn close(&self) {
        self.postgres.close().await;
    }
}
