//! A part of the pool, for work that must not take all of it.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::{Fault, Postgres};

/// A part of the connections for what callers wait for: work that goes through it leaves the others to other work, however
/// much of it there is. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bulkhead {
    postgres: Postgres,
    places: Arc<Semaphore>,
    /// How long a place is waited for.
    patience: Duration,
}

impl Bulkhead {
    /// `percent` of the connections, but at least one.
    pub(crate) fn new(postgres: Postgres, percent: u32) -> Self {
        let (connections, patience) = postgres.callers_limits();
        let places = usize::try_from((connections * percent / 100).max(1)).unwrap_or(1);
        Self { postgres, places: Arc::new(Semaphore::new(places)), patience }
    }

    /// Like [`Postgres::run`], once there is a place. It is taken until the connection is free again, also if the future is
    /// dropped: what Postgres still works on takes a connection.
    ///
    /// # Errors
    /// Like [`Postgres::run`]; [`Fault::Exhausted`], too, if no place became free for as long as a connection is waited for.
    pub async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Fault> {
        match timeout(self.patience, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(place)) => self.postgres.run_in(place, work).await,
            Ok(Err(_)) | Err(_) => Err(self.postgres.no_place()),
        }
    }
}
