//! Migrations: forward only, one instance at a time, and never by surprise.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::migrate::{Migrate as _, MigrateError as Cause, Migration, Migrator};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::time::timeout;

use crate::fault::is_away;
use crate::start::check_version;
use crate::{Args, Fault, StartError};

/// How long a Postgres may take to let us in: one that is stopped accepts connections and never answers.
const CONNECT: Duration = Duration::from_secs(5);
/// The answer of Postgres to a query of a table that is not there.
const UNDEFINED_TABLE: &str = "42P01";

/// Why the schema is not as the service needs it.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Nobody answered, or refused us, or it is too old.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A migration failed; those before it stay applied, it left nothing.
    #[error("migration failed")]
    Failed(#[source] Cause),
    /// The schema is older than the service.
    #[error("{count} migration(s) are pending, the first is `{first}`: run the service's `migrate` command")]
    Pending {
        /// How many.
        count: usize,
        /// What the first does.
        first: String,
    },
}

impl MigrateError {
    /// Whether it is for Postgres to come back, rather than for people to mend something.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Start(error) => error.is_away(),
            Self::Failed(Cause::Execute(error) | Cause::ExecuteMigration(error, _)) => is_away(error),
            Self::Failed(_) | Self::Pending { .. } => false,
        }
    }
}

/// The migrations that a service brings.
#[derive(Clone, Copy, Debug)]
pub struct Migrations(&'static Migrator);

impl Migrations {
    /// Takes what `sqlx::migrate!` made.
    pub const fn new(migrator: &'static Migrator) -> Self {
        Self(migrator)
    }

    /// Applies what is pending. Several may do so at once: one applies, the others wait for it and find nothing to do.
    /// Migrations that are applied but not known here are of a newer release, which may run beside this one.
    ///
    /// # Errors
    /// [`MigrateError::Start`] or [`MigrateError::Failed`].
    pub async fn apply(self, args: &Args) -> Result<(), MigrateError> {
        let mut connection = connect(args).await?;
        let mut migrator = Migrator::with_migrations(self.0.iter().cloned().collect());
        migrator.set_ignore_missing(true);
        // Not `run`: no compiler can see that a future with the driver's `Acquire` in it is `Send`.
        migrator.run_direct(None, &mut connection, false).await.map_err(MigrateError::Failed)?;
        let _ = connection.close().await;
        Ok(())
    }

    /// Checks that nothing is pending.
    ///
    /// # Errors
    /// [`MigrateError`]; `Failed` if what was applied can not be read.
    pub async fn check(self, args: &Args) -> Result<(), MigrateError> {
        let mut connection = connect(args).await?;
        let applied: HashSet<i64> = match connection.list_applied_migrations(&self.0.table_name).await {
            Ok(applied) => applied.into_iter().map(|migration| migration.version).collect(),
            Err(error) if no_table(&error) => HashSet::new(), // nothing was ever applied
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

/// A connection without the limits of the pools: a migration may wait for another instance and take its time.
async fn connect(args: &Args) -> Result<PgConnection, StartError> {
    let (options, place) = (args.postgres_url.options().clone(), args.postgres_url.to_string());
    let fault = match timeout(CONNECT, options.application_name("tidings-migrate").connect()).await {
        Ok(Ok(connection)) => return check_version(&connection, &place).map(|()| connection),
        Ok(Err(error)) => Fault::from(error),
        Err(_) => Fault::Away(None),
    };
    Err(StartError::Connect(place, fault))
}
