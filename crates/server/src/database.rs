//! The database of a service at its start: waited for while it is away, refused at once if it is not right.

use std::time::Duration;

use tidings_postgres::{Args, Migrations, Postgres};
use tokio::time::sleep;

use crate::run::chain;
use crate::{Health, ServeError};

/// The pause between two looks, half as long or half as long again: instances that wait together do not look together.
const PAUSE: Duration = Duration::from_millis(500);

/// The database of a service, which nobody has looked at yet.
#[derive(Debug)]
pub struct Database {
    postgres: Postgres,
    args: Args,
    migrations: Migrations,
    migrate: bool,
}

impl Database {
    /// The database of `application`, whose schema is applied if `migrate` and must be up to date if not.
    pub fn new(args: &Args, migrations: Migrations, migrate: bool, application: &str) -> Self {
        Self { postgres: Postgres::closed(args, application), args: args.clone(), migrations, migrate }
    }

    /// Its pools, which do no work before it is found right.
    pub fn postgres(&self) -> Postgres {
        self.postgres.clone()
    }

    /// Makes sure that it is right, then lets its pools work and `health` tell so, once `first` is done.
    ///
    /// While it is away it is looked at about twice a second: a service that ended instead would be started by its
    /// orchestrator again and again, later each time.
    ///
    /// # Errors
    /// [`ServeError::Migrate`] or [`ServeError::Postgres`] if it answers and is not right.
    pub fn open(
        self,
        health: Health,
        first: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = Result<(), ServeError>> + Send + 'static {
        health.hold(format!("postgres at {}", self.args.postgres_url)); // now, not when it is polled
        self.wait(health, first)
    }

    async fn wait(self, health: Health, first: impl Future<Output = ()>) -> Result<(), ServeError> {
        while let Err(error) = self.look().await {
            if !is_away(&error) {
                return Err(error);
            }
            if health.wait() {
                tracing::warn!(error = chain(&error), "not ready, waiting for postgres");
            }
            sleep(PAUSE.mul_f64(rand::random_range(0.5..1.5))).await;
        }
        first.await;
        health.begin();
        tracing::info!("ready");
        Ok(())
    }

    async fn look(&self) -> Result<(), ServeError> {
        if self.migrate {
            self.migrations.apply(&self.args).await?;
        }
        self.migrations.check(&self.args).await?;
        Ok(self.postgres.open().await?)
    }
}

/// Whether it is for Postgres to come back, rather than for people to mend something.
fn is_away(error: &ServeError) -> bool {
    match error {
        ServeError::Migrate(error) => error.is_away(),
        ServeError::Postgres(error) => error.is_away(),
        _ => false,
    }
}
