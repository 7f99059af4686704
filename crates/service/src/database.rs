//! The database of a service at start-up: an unavailable one is waited for, an unsuitable one ends
//! the service at once.

use std::time::Duration;

use tidings_postgres::{Args, Migrations, Postgres};
use tidings_server::Health;
use tokio::time::sleep;

use crate::error::{ServeError, chain};

/// Pause between two attempts, with +/-50 % jitter so that waiting instances do not connect in
/// step.
const PAUSE: Duration = Duration::from_millis(500);

/// The database of a service, not checked yet.
#[derive(Debug)]
pub struct Database {
    postgres: Postgres,
    args: Args,
    migrations: Migrations,
    migrate: bool,
}

impl Database {
    /// Creates the database of `application`. With `migrate`, pending migrations are applied;
    /// without it, a pending migration is an error.
    pub fn new(args: &Args, migrations: Migrations, migrate: bool, application: &str) -> Self {
        Self { postgres: Postgres::closed(args, application), args: args.clone(), migrations, migrate }
    }

    /// Returns the connection pools, which refuse work until the database has been checked.
    pub fn postgres(&self) -> Postgres {
        self.postgres.clone()
    }

    /// Checks the database and opens its pools, awaits `first`, then lets `health` report
    /// readiness.
    ///
    /// Retries about twice a second while the database is unavailable. A service that ended instead
    /// would be restarted by its orchestrator with growing delays.
    ///
    /// # Errors
    /// [`ServeError::Migrate`] or [`ServeError::Postgres`] if the database answers and cannot be
    /// used.
    pub fn open(
        self,
        health: Health,
        first: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = Result<(), ServeError>> + Send + 'static {
        health.mark_starting(format!("postgres at {}", self.args.postgres_url)); // at once, not when the future is polled
        self.wait_until_ready(health, first)
    }

    async fn wait_until_ready(self, health: Health, first: impl Future<Output = ()>) -> Result<(), ServeError> {
        let address = self.args.postgres_url.to_string();
        let mut last_problem = String::new();
        while let Err(error) = self.try_open().await {
            if !is_away(&error) {
                return Err(error);
            }
            let problem = chain(&error);
            health.mark_waiting(format!("postgres at {address}: {problem}"));
            if problem != last_problem {
                tracing::warn!(error = problem, "not ready, waiting for postgres");
            }
            last_problem = problem;
            sleep(PAUSE.mul_f64(rand::random_range(0.5..1.5))).await;
        }
        first.await;
        health.mark_started();
        tracing::info!("ready");
        Ok(())
    }

    async fn try_open(&self) -> Result<(), ServeError> {
        if self.migrate {
            self.migrations.apply(&self.args).await?;
        }
        self.migrations.check(&self.args).await?;
        Ok(self.postgres.open().await?)
    }
}

/// Returns whether waiting for Postgres may help. Any other error needs an operator.
fn is_away(error: &ServeError) -> bool {
    match error {
        ServeError::Migrate(error) => error.is_away(),
        ServeError::Postgres(error) => error.is_away(),
        _ => false,
    }
}
