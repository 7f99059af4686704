//! Two pools with their limits. All work passes through [`Postgres::run_on`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sqlx::PgConnection;
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::args::Args;
use crate::fault::Fault;
use crate::metrics::Metrics;
use crate::pooled_connection::PooledConnection;
use crate::start::{StartError, check_version};

/// Connections for background work: relays and sweeps.
const BACKGROUND_CONNECTIONS: u32 = 4;
/// Added to the acquire and the statement timeout: work that takes longer loses its connection.
const GRACE: Duration = Duration::from_millis(500);
/// Longest life of a connection, so that load moves when the servers behind a host name change.
const LIFETIME: Duration = Duration::from_mins(30);

/// Probe of a full server: allocates a little disk space and frees it at the end of the
/// transaction.
const DISK_PROBE: &str =
    "CREATE TEMPORARY TABLE tidings_room ON COMMIT DROP AS SELECT repeat('room', 100) FROM generate_series(1, 100)";

/// The pools of one service on one database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Postgres {
    /// Address for error messages, without password.
    address: String,
    callers: Arc<Pool>,
    background: Arc<Pool>,
    /// Size of the callers' pool, and the longest wait for one of its connections.
    limits: (u32, Duration),
    work_limit: Duration,
    state: Arc<ServerState>,
}

/// One pool and its metrics.
#[derive(Debug)]
pub(crate) struct Pool {
    pool: PgPool,
    metrics: Metrics,
}

impl Pool {
    /// Updates the connection gauges.
    pub(crate) fn update_connections(&self) {
        self.metrics.update_connections(&self.pool);
    }
}

/// State of the server as observed by both pools.
#[derive(Debug, Default)]
struct ServerState {
    /// True once its version was accepted.
    open: AtomicBool,
    /// True if the latest work received a response.
    answers: AtomicBool,
    /// True if it was out of disk space or memory when last used.
    full: AtomicBool,
    /// Time of the latest observed outage.
    away: Mutex<Option<Instant>>,
}

impl ServerState {
    fn found_away(&self) {
        self.answers.store(false, Ordering::Relaxed);
        *self.away.lock() = Some(Instant::now());
    }

    /// Returns true if an outage was observed within the last `age`.
    fn was_away_within(&self, age: Duration) -> bool {
        self.away.lock().is_some_and(|away| away.elapsed() <= age)
    }
}

impl Postgres {
    /// Connects, and checks the server's version.
    ///
    /// # Errors
    /// Like [`Postgres::open`].
    pub async fn connect(args: &Args, application: &str) -> Result<Self, StartError> {
        let postgres = Self::closed(args, application);
        postgres.open().await?;
        Ok(postgres)
    }

    /// Creates pools that refuse all work with [`Fault::Away`] until [`Postgres::open`] succeeds. A
    /// service can thus start before its database, and never works on an unsuitable one.
    pub fn closed(args: &Args, application: &str) -> Self {
        let statement = *args.postgres_statement_timeout;
        let acquire = *args.postgres_acquire_timeout;
        let options = args.postgres_url.options().clone().application_name(application).options([
            ("statement_timeout", statement.as_millis().to_string()),
            ("lock_timeout", (statement / 2).as_millis().to_string()),
            ("idle_in_transaction_session_timeout", "5000".to_owned()),
        ]);
        let state = Arc::new(ServerState::default());
        let pool = |name, connections| {
            let state = Arc::clone(&state);
            let pool = PgPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(acquire)
                .max_lifetime(LIFETIME)
                .test_before_acquire(false) // it would cost a round trip per statement
                // Instead, connections from before an outage are dropped: most of them are dead.
                .before_acquire(move |_, about| {
                    let usable = !state.was_away_within(about.age);
                    Box::pin(async move { Ok(usable) })
                })
                .connect_lazy_with(options.clone());
            Arc::new(Pool { pool, metrics: Metrics::new(name) })
        };
        Self {
            address: args.postgres_url.to_string(),
            callers: pool("callers", args.postgres_connections),
            background: pool("background", BACKGROUND_CONNECTIONS),
            limits: (args.postgres_connections, acquire),
            work_limit: acquire + statement + GRACE,
            state,
        }
    }

    /// Checks the server's version and opens the pools.
    ///
    /// # Errors
    /// [`StartError`] if the server does not respond within the acquire timeout, or is too old.
    pub async fn open(&self) -> Result<(), StartError> {
        let checked =
            self.work_on(&self.callers, None, async |connection| Ok(check_version(connection, &self.address))).await;
        checked.map_err(|fault| match fault {
            // The pool has no other user yet.
            Fault::Exhausted => StartError::Connect(self.address.clone(), Fault::Away(None)),
            fault => StartError::Connect(self.address.clone(), fault),
        })??;
        self.state.open.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Runs work that a caller waits for, with exclusive use of a connection.
    ///
    /// Work that exceeds the limits loses its connection, which rolls back an open transaction. If
    /// the future is dropped, the current statement may still be executed; its connection is reused
    /// after the response, or closed if none arrives.
    ///
    /// # Errors
    /// [`Fault`]. After [`Fault::Ambiguous`] the transaction may or may not have committed.
    pub async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Fault> {
        self.run_on(&self.callers, None, work).await
    }

    /// Like [`Postgres::run`], with a permit of a bulkhead.
    pub(crate) async fn run_in<T>(
        &self,
        permit: OwnedSemaphorePermit,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Fault> {
        self.run_on(&self.callers, Some(permit), work).await
    }

    pub(crate) fn callers_limits(&self) -> (u32, Duration) {
        self.limits
    }

    /// Returns the fault of work that got no permit of its bulkhead.
    pub(crate) fn no_permit(&self) -> Fault {
        self.callers.metrics.failed(self.judge(Fault::Exhausted))
    }

    /// Runs background work, on the connections reserved for it.
    ///
    /// # Errors
    /// Like [`Postgres::run`].
    pub async fn run_background<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Fault> {
        let done = self.run_on(&self.background, None, work).await;
        if matches!(done, Err(Fault::Exhausted)) {
            return Err(self.judge(Fault::Away(None)));
        }
        done
    }

    /// Probes Postgres on the background connections within `patience`. Returns true if it
    /// responded. A full server is probed for disk space.
    ///
    /// A probe that gets no connection marks the server as unavailable, even if `patience` is
    /// shorter than the acquire timeout: a service without a relay would not notice otherwise.
    pub async fn ping(&self, patience: Duration) -> bool {
        let full = self.state.full.load(Ordering::Relaxed);
        let query = if full { DISK_PROBE } else { "SELECT 1" };
        let mut connected = false;
        let probe = self.run_background(async |connection| {
            connected = true;
            sqlx::raw_sql(query).execute(connection).await
        });
        let probed = timeout(patience, probe).await;
        if probed.is_err() && !connected {
            self.judge(Fault::Away(None));
        }
        let answered = matches!(probed, Ok(Ok(_)));
        if full && answered {
            self.state.full.store(false, Ordering::Relaxed);
        }
        answered
    }

    /// Returns true if the latest work sent to Postgres received a response.
    pub fn answers(&self) -> bool {
        self.state.answers.load(Ordering::Relaxed)
    }

    /// Waits for running work, then closes all connections.
    pub async fn close(&self) {
        self.callers.pool.close().await;
        self.background.pool.close().await;
    }

    async fn run_on<T>(
        &self,
        pool: &Arc<Pool>,
        permit: Option<OwnedSemaphorePermit>,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Fault> {
        if !self.state.open.load(Ordering::Relaxed) {
            return Err(pool.metrics.failed(Fault::Away(None)));
        }
        // Boxed because the future has kilobytes, which every caller that might use Postgres would
        // embed.
        Box::pin(self.work_on(pool, permit, work)).await
    }

    async fn work_on<T>(
        &self,
        pool: &Arc<Pool>,
        permit: Option<OwnedSemaphorePermit>,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Fault> {
        let failed = |fault| Err(pool.metrics.failed(self.judge(fault)));
        let waiting_since = Instant::now();
        let acquired = pool.pool.acquire().await;
        pool.metrics.waited(waiting_since);
        let connection = match acquired {
            Ok(connection) => connection,
            Err(error) => return failed(Fault::from(error)),
        };
        let mut pooled = PooledConnection::new(connection, permit, self.work_limit, pool);
        let start = Instant::now();
        let worked = timeout(self.work_limit, work(pooled.connection())).await;
        pool.metrics.worked(start);
        match worked {
            Ok(Ok(done)) => {
                self.state.answers.store(true, Ordering::Relaxed);
                Ok(done)
            }
            Ok(Err(error)) => failed(Fault::of_work(error)),
            Err(_) => {
                pooled.close();
                failed(Fault::Ambiguous(None))
            }
        }
    }

    /// Updates the observed state of the server from a fault, and refines the fault by it.
    ///
    /// A timeout of the pool alone is ambiguous: sqlx waits for a server that refuses connections
    /// just as for a busy connection. The background pool, which always has a free connection and
    /// is used four times a second by a relay, distinguishes the two.
    fn judge(&self, fault: Fault) -> Fault {
        match fault {
            Fault::Exhausted if !self.answers() => Fault::Away(None),
            Fault::Away(Some(_)) | Fault::Ambiguous(Some(_)) => {
                self.state.found_away();
                fault
            }
            // Concluded from a timeout, which does not condemn the other connections: this work may
            // be slow, or the machine busy.
            Fault::Away(None) | Fault::Ambiguous(None) => {
                self.state.answers.store(false, Ordering::Relaxed);
                fault
            }
            Fault::Full(_) => {
                self.state.full.store(true, Ordering::Relaxed);
                fault
            }
            other => other,
        }
    }
}
