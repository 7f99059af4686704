//! Postgres, one file per table.

mod accounts;
mod outbox;
mod refusal;
mod row;
mod versions;

pub use accounts::{Accounts, Created, Deleted, Updated};
pub use outbox::Outbox;
pub use tidings_postgres::Fault as Error;
pub use versions::Versions;

/// How much of the connections what callers read may take: with a cold cache, or none, writes still find one.
const READS_PERCENT: u32 = 70;

/// The tables of the service.
#[derive(Clone, Debug)]
pub struct Store {
    /// The profiles.
    pub accounts: Accounts,
    /// Their versions alone.
    pub versions: Versions,
    /// What the cache has yet to hear.
    pub outbox: Outbox,
    postgres: tidings_postgres::Postgres,
}

impl Store {
    /// The tables in one database.
    pub fn new(postgres: tidings_postgres::Postgres) -> Self {
        let reads = postgres.bulkhead(READS_PERCENT);
        Self {
            accounts: Accounts::new(postgres.clone(), reads.clone()),
            versions: Versions::new(postgres.clone(), reads),
            outbox: Outbox::new(postgres.clone()),
            postgres,
        }
    }

    /// Whether Postgres answered when it was asked last.
    pub fn answers(&self) -> bool {
        self.postgres.answers()
    }

    /// Closes all connections, after the work on them.
    pub async fn close(&self) {
        self.postgres.close().await;
    }
}
