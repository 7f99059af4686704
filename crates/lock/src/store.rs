//! Postgres: the epochs, from which tokens grow whatever Redis forgets.

mod epochs;

pub use epochs::{Epochs, Opening, Row};
pub use tidings_postgres::Fault as Error;

/// The tables of the service.
#[derive(Clone, Debug)]
pub struct Store {
    /// The epochs.
    pub epochs: Epochs,
    postgres: tidings_postgres::Postgres,
}

impl Store {
    /// The tables in one database.
    pub fn new(postgres: tidings_postgres::Postgres) -> Self {
        Self { epochs: Epochs::new(postgres.clone()), postgres }
    }

    /// Closes all connections, after the work on them.
    pub async fn close(&self) {
        self.postgres.close().await;
    }
}
