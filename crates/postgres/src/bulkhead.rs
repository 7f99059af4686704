//! A bulkhead: a share of the pool for one class of work.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::fault::Fault;
use crate::pool::{Postgres, WorkFailure};

/// A share of the callers' connections. Work that runs through it never occupies more connections,
/// so the rest remains for other work. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bulkhead {
    postgres: Postgres,
    permits: Arc<Semaphore>,
    /// Longest wait for a permit.
    patience: Duration,
}

impl Postgres {
    /// Creates a bulkhead of `percent` of the callers' connections, at least one.
    pub fn bulkhead(&self, percent: u32) -> Bulkhead {
        let (connections, patience) = self.callers_limits();
        let permits = usize::try_from((connections * percent / 100).max(1)).unwrap_or(1);
        Bulkhead { postgres: self.clone(), permits: Arc::new(Semaphore::new(permits)), patience }
    }
}

impl Bulkhead {
    /// Waits for a permit, then runs the work like [`Postgres::run`].
    ///
    /// The permit is released together with the connection, even if the future is dropped:
    /// abandoned work occupies a connection while Postgres executes it.
    ///
    /// # Errors
    /// Like [`Postgres::run`]; also [`Fault::Exhausted`] if no permit was released within the
    /// acquire timeout.
    pub async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Fault> {
        Ok(self.run_once(work).await?)
    }

    /// Runs work that only reads, like [`Postgres::read`], each time with a permit.
    ///
    /// # Errors
    /// Like [`Bulkhead::run`].
    pub async fn read<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error> + Clone,
    ) -> Result<T, Fault> {
        let read = match self.run_once(work.clone()).await {
            Err(failure) if failure.lost_connection => self.run_once(work).await,
            done => done,
        };
        read.map_err(|failure| failure.fault.of_read())
    }

    async fn run_once<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, WorkFailure> {
        match timeout(self.patience, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => self.postgres.run_in(permit, work).await,
            Ok(Err(_)) | Err(_) => Err(self.postgres.no_permit().into()),
        }
    }
}
