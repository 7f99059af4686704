//! Migrations: forward only, by one instance at a time, and only on request.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::migrate::{Migrate as _, MigrateError as Cause, Migration, Migrator};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::time::timeout;

use crate::args::Args;
use crate::fault::{Fault, is_away};
use crate::start::{StartError, check_version};

/// Longest time to connect: a paused server accepts connections and never responds.
const CONNECT: Duration = Duration::from_secs(5);
/// SQLSTATE of a query of a missing table.
const UNDEFINED_TABLE: &str = "42P01";

/// Reason why the schema does not fit the service.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Postgres is unreachable, refused the connection, or is too old.
    #[error(transparent)]
    Start(#[from] StartError),
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
            Self::Failed(_) | Self::Pending { .. } => false,
        }
    }
}

/// The migrations of a service.
#[derive(Clone, Copy, Debug)]
pub struct Migrations(&'static Migrator);

impl Migrations {
    /// Wraps the result of `sqlx::migrate!`.
    pub const fn new(migrator: &'static Migrator) -> Self {
        Self(migrator)
    }

    /// Applies pending migrations. Safe to run concurrently: one instance applies, the others wait
    /// and find nothing to do. Unknown applied migrations belong to a newer release, which may run
    /// beside this one.
    ///
    /// # Errors
    /// [`MigrateError::Start`] or [`MigrateError::Failed`].
    pub async fn apply(self, args: &Args) -> Result<(), MigrateError> {
        let mut connection = connect(args).await?;
        let mut migrator = Migrator::with_migrations(self.0.iter().cloned().collect());
        migrator.set_ignore_missing(true);
        // Not `run`: the compiler cannot prove that its future, which holds the driver's `Acquire`,
        // is `Send`.
        migrator.run_direct(None, &mut connection, false).await.map_err(MigrateError::Failed)?;
        let _ = connection.close().await;
        Ok(())
    }

    /// Checks that no migration is pending.
    ///
    /// # Errors
    /// [`MigrateError`]; `Failed` if the list of applied migrations cannot be read.
    pub async fn check(self, args: &Args) -> Result<(), MigrateError> {
        let mut connection = connect(args).await?;
        let applied: HashSet<i64> = match connection.list_applied_migrations(&self.0.table_name).await {
            Ok(applied) => applied.into_iter().map(|migration| migration.version).collect(),
            Err(error) if no_table(&error) => HashSet::new(), // no migration was ever applied
            Err(error) => return Err(MigrateError::Failed(error)),
        };
        let _ = connection.close().await;
        let pending: Vec<&Migration> = self.0.iter().filter(|known| !applied.contains(&known.version)).collect();
        match pending.first() {
            None => Ok(()),
            Some(first) => {
                Err(MigrateError::Pending { count: pending.len(), first: first.description.clone().into_owned() })
            }
        }
    }
}

fn no_table(error: &Cause) -> bool {
    let Cause::Execute(sqlx::Error::Database(refusal)) = error else { return false };
    refusal.code().as_deref() == Some(UNDEFINED_TABLE)
}

/// Opens a connection without the limits of the pools: a migration may run long, or wait for
/// another instance.
async fn connect(args: &Args) -> Result<PgConnection, StartError> {
    let (options, address) = (args.postgres_url.options().clone(), args.postgres_url.to_string());
    let fault = match timeout(CONNECT, options.application_name("tidings-migrate").connect()).await {
        Ok(Ok(connection)) => return check_version(&connection, &address).map(|()| connection),
        Ok(Err(error)) => Fault::from(error),
        Err(_) => Fault::Away(None),
    };
    Err(StartError::Connect(address, fault))
}
