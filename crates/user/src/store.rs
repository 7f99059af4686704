//! Postgres: one file per table.

mod accounts;
mod outbox;
mod row;
mod versions;

pub use accounts::{Accounts, CreateUserOutcome, DeleteUserOutcome, UpdateUserOutcome};
pub use outbox::Outbox;
pub use tidings_postgres::Fault as Error;
pub use versions::AccountVersions;

/// Share of the connections for reads of callers, in percent: writes still get one while every read
/// is a miss, or Redis is unavailable.
const READS_PERCENT: u32 = 70;

/// The tables of the service.
#[derive(Clone, Debug)]
pub struct Store {
    /// Profiles in `user_account`.
    pub accounts: Accounts,
    /// Versions in `user_account`.
    pub versions: AccountVersions,
    /// Users in `cache_outbox`, whose cached profile may be outdated.
    pub outbox: Outbox,
    postgres: tidings_postgres::Postgres,
}

impl Store {
    /// Creates the tables over one database.
    pub fn new(postgres: tidings_postgres::Postgres) -> Self {
        let reads = postgres.bulkhead(READS_PERCENT);
        Self {
            accounts: Accounts::new(postgres.clone(), reads.clone()),
            versions: AccountVersions::new(postgres.clone(), reads),
            outbox: Outbox::new(postgres.clone()),
            postgres,
        }
    }

    /// Returns true if Postgres replied to the last statement or probe.
    pub fn is_available(&self) -> bool {
        self.postgres.answers()
    }

    /// Closes all connections, each after its statement.
    pub async fn close(&self) {
        self.postgres.close().await;
    }
}
