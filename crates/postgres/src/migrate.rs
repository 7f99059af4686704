//! Migrations: forward only, by one instance at a time, and only on request.

use sqlx::migrate::{MigrateError as Cause, Migration, Migrator};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::time::timeout;

use crate::args::Args;
use crate::cause;
use crate::connector::Connector;
use crate::fault::{Fault, is_away};
use crate::ledger::{self, ForeignDatabase, Ledger};
use crate::session::SessionSettings;
use crate::start::{StartError, connect_and_check};

/// Key of the lock on the ledger while its service is written, and through a pooler while
/// migrations are applied. Any number works that no other program uses in the same database.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7401740274037404)";

/// Reason why the schema does not fit the service.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Postgres is unreachable, refused the connection, or cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The database belongs to another service.
    #[error(transparent)]
    Foreign(#[from] ForeignDatabase),
    /// A migration failed and was rolled back; earlier ones stay applied.
    #[error("migration failed")]
    Failed(#[source] Cause),
    /// The schema is older than the service.
    #[error("{count} migration(s) are pending, first `{first}`: run the service's `migrate` command")]
    Pending {
        /// Number of pending migrations.
        count: usize,
        /// Description of the first one.
        first: String,
    },
}

impl MigrateError {
    /// Returns true if waiting may help, because Postgres is unavailable; false if an operator must
    /// act.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Start(error) => error.is_away(),
            Self::Failed(Cause::Execute(error) | Cause::ExecuteMigration(error, _)) => is_away(error),
            Self::Failed(_) | Self::Foreign(_) | Self::Pending { .. } => false,
        }
    }
}

impl From<sqlx::Error> for MigrateError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(Cause::Execute(error))
    }
}

/// The migrations of a service.
#[derive(Clone, Copy, Debug)]
pub struct Migrations {
    service: &'static str,
    migrator: &'static Migrator,
}

impl Migrations {
    /// Wraps the result of `sqlx::migrate!`. The name of the service is a word, which the database
    /// keeps.
    pub const fn new(service: &'static str, migrator: &'static Migrator) -> Self {
        Self { service, migrator }
    }

    /// Applies pending migrations. Safe to run concurrently: one instance applies, the others wait
    /// and find nothing to do. Unknown applied migrations belong to a newer release, which may run
    /// beside this one.
    ///
    /// # Errors
    /// [`MigrateError::Start`], [`MigrateError::Foreign`] or [`MigrateError::Failed`].
    pub async fn apply(self, args: &Args) -> Result<(), MigrateError> {
        let connector = connector(args);
        let mut connection = connect(&connector).await?;
        let ledger = self.ledger(&connector, &mut connection).await?;
        let mut migrator = Migrator::with_migrations(self.migrator.iter().cloned().collect());
        migrator.set_ignore_missing(true);
        // Not `run`: the compiler cannot prove that its future, which holds the driver's `Acquire`,
        // is `Send`.
        if let Some(begin) = connector.session().begin() {
            // The lock of sqlx belongs to a session, which a pooler shares.
            migrator.set_locking(false);
            let mut transaction = connection.begin_with(AssertSqlSafe(begin)).await?;
            sqlx::raw_sql(LOCK).execute(&mut *transaction).await?;
            migrator.run_direct(None, &mut *transaction, false).await.map_err(MigrateError::Failed)?;
            transaction.commit().await?;
        } else {
            migrator.run_direct(None, &mut connection, false).await.map_err(MigrateError::Failed)?;
        }
        if ledger.owner.is_none() {
            self.claim(&mut connection).await;
        }
        let _ = connection.close().await;
        Ok(())
    }

    /// Checks that the database belongs to the service, and that no migration is pending.
    ///
    /// # Errors
    /// [`MigrateError`]; `Failed` if the list of applied migrations cannot be read.
    pub async fn check(self, args: &Args) -> Result<(), MigrateError> {
        let connector = connector(args);
        let mut connection = connect(&connector).await?;
        let ledger = self.ledger(&connector, &mut connection).await?;
        let _ = connection.close().await;
        let pending: Vec<&Migration> = self.migrator.iter().filter(|known| !ledger.has(known.version)).collect();
        match pending.first() {
            None => Ok(()),
            Some(first) => {
                Err(MigrateError::Pending { count: pending.len(), first: first.description.clone().into_owned() })
            }
        }
    }

    /// Reads the ledger and checks that it is that of the service.
    async fn ledger(self, connector: &Connector, connection: &mut PgConnection) -> Result<Ledger, MigrateError> {
        let ledger = Ledger::read(connection).await?;
        ledger.verify(self.service, self.migrator.iter(), &connector.address())?;
        Ok(ledger)
    }

    /// Makes the ledger name its service. A role that does not own the ledger cannot; then the
    /// migrations alone show the service.
    async fn claim(self, connection: &mut PgConnection) {
        let claim = format!("BEGIN; {LOCK}; {}; COMMIT", ledger::claim(self.service));
        if let Err(error) = sqlx::raw_sql(AssertSqlSafe(claim)).execute(connection).await {
            tracing::debug!(error = cause::describe(&error), "cannot write the service into the ledger");
        }
    }
}

/// Returns a connector without the limits of the pools: a migration may run long, or wait for
/// another instance.
fn connector(args: &Args) -> Connector {
    Connector::new(args, "tidings-migrate", SessionSettings::of_migrations(args))
}

/// Opens a connection to a server that can be used. A paused server accepts connections and never
/// responds.
async fn connect(connector: &Connector) -> Result<PgConnection, StartError> {
    let address = connector.address();
    let limit = connector.limit() * 2;
    if let Ok(checked) = timeout(limit, connect_and_check(connector, &address)).await {
        return checked.map(|server| server.connection);
    }
    let cause = cause::Cause::timeout(format!("no response within {}", humantime::Duration::from(limit)));
    Err(StartError::Connect(address, Fault::Away(cause)))
}
