//! Two pools with their limits. All work passes through [`Postgres::run_on`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::args::Args;
use crate::cause::Cause;
use crate::connection_pool::ConnectionPool;
use crate::connector::Connector;
use crate::fault::Fault;
use crate::incarnation::INCARNATION;
use crate::metrics::Metrics;
use crate::pooled_connection::PooledConnection;
use crate::server_state::ServerState;
use crate::session::SessionSettings;
use crate::start::{self, StartError};

/// Connections for background work: relays and sweeps.
const BACKGROUND_CONNECTIONS: u32 = 4;
/// Added to the acquire and the statement timeout: work that takes longer loses its connection.
const GRACE: Duration = Duration::from_millis(500);

/// Condition of a server that serves: false on a standby and on a read-only server.
const SERVES: &str = "NOT pg_is_in_recovery() AND NOT current_setting('transaction_read_only')::bool";
/// Probe of a full server: a sort that exceeds its memory allocates a little disk space until it
/// ends. It needs no privilege.
const DISK_PROBE: &str = "SET LOCAL work_mem = '64kB'; \
    SELECT count(*) FROM (SELECT repeat('room', 100) || n FROM generate_series(1, 2000) AS n ORDER BY 1 OFFSET 1) AS s";

/// The pools of one service on one database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Postgres {
    connector: Arc<Connector>,
    callers: Arc<ConnectionPool>,
    background: Arc<ConnectionPool>,
    /// Size of the callers' pool, and the longest wait for one of its connections.
    limits: (u32, Duration),
    work_limit: Duration,
    state: Arc<ServerState>,
}

/// Failure of work, or of the wait for its connection.
#[derive(Debug)]
pub(crate) struct WorkFailure {
    pub(crate) fault: Fault,
    /// True if the connection ended after the work had begun: reads may be repeated.
    pub(crate) lost_connection: bool,
}

impl From<Fault> for WorkFailure {
    fn from(fault: Fault) -> Self {
        Self { fault, lost_connection: false }
    }
}

impl From<WorkFailure> for Fault {
    fn from(failure: WorkFailure) -> Self {
        failure.fault
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
        let connector = Arc::new(Connector::new(args, application, SessionSettings::of_service(args)));
        let pool = |name, size| ConnectionPool::new(Arc::clone(&connector), size, acquire, Metrics::new(name));
        Self {
            callers: pool("callers", args.postgres_connections),
            background: pool("background", BACKGROUND_CONNECTIONS),
            connector,
            limits: (args.postgres_connections, acquire),
            work_limit: acquire + statement + GRACE,
            state: Arc::default(),
        }
    }

    /// Checks that the server is supported and can be written to, and opens the pools.
    ///
    /// # Errors
    /// [`StartError`] if there is no connection within the connect timeout, or the server cannot be
    /// used.
    pub async fn open(&self) -> Result<(), StartError> {
        let address = self.connector.address();
        let limit = self.connector.limit() + self.work_limit;
        let checked = timeout(limit, async {
            let mut server = start::connect_and_check(&self.connector, &address).await?;
            let read = self.connector.read_incarnation(&mut server.connection).await;
            read.map_err(|failure| StartError::Connect(address.clone(), failure.into()))?;
            start::check_backends(&self.connector, &mut server.connection, &address).await?;
            Ok(server)
        });
        let checked = match checked.await {
            Ok(checked) => checked,
            Err(_) => Err(StartError::Connect(address, Fault::Away(Cause::timeout("no response to the first query")))),
        };
        let server = checked.inspect_err(|error| self.state.note(error.describe()))?;
        self.connector.log_security(server.is_encrypted);
        self.callers.adopt(server.connection);
        self.state.found_well();
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
        Ok(self.run_on(&self.callers, None, work).await?)
    }

    /// Like [`Postgres::run`], with a permit of a bulkhead.
    pub(crate) async fn run_in<T>(
        &self,
        permit: OwnedSemaphorePermit,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, WorkFailure> {
        self.run_on(&self.callers, Some(permit), work).await
    }

    /// Runs work that only reads, like [`Postgres::run`]. It is repeated once if its connection was
    /// lost: one that was idle may have ended without notice.
    ///
    /// # Errors
    /// Like [`Postgres::run`], never [`Fault::Ambiguous`].
    pub async fn read<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error> + Clone,
    ) -> Result<T, Fault> {
        let read = match self.run_on(&self.callers, None, work.clone()).await {
            Err(failure) if failure.lost_connection => self.run_on(&self.callers, None, work).await,
            done => done,
        };
        read.map_err(|failure| failure.fault.of_read())
    }

    pub(crate) fn callers_limits(&self) -> (u32, Duration) {
        self.limits
    }

    /// Returns the fault of work that got no permit of its bulkhead.
    pub(crate) fn no_permit(&self) -> Fault {
        self.callers.metrics().failed(self.state.judge(Fault::Exhausted))
    }

    /// Runs background work, on the connections reserved for it.
    ///
    /// # Errors
    /// Like [`Postgres::run`].
    pub async fn run_background<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Fault> {
        match self.run_on(&self.background, None, work).await {
            Err(WorkFailure { fault: Fault::Exhausted, .. }) => {
                let cause = Cause::timeout("all connections for background work wait for responses");
                Err(self.state.judge(Fault::Away(cause)))
            }
            done => Ok(done?),
        }
    }

    /// Probes Postgres on the background connections within `patience`. Returns true if it responds
    /// and can be written to. A full server is probed for disk space. Needs no privileges.
    ///
    /// A probe that gets no connection marks the server as unavailable, even if `patience` is
    /// shorter than the acquire timeout: a service without a relay would not notice otherwise.
    pub async fn ping(&self, patience: Duration) -> bool {
        let full = self.state.full.load(Ordering::Relaxed);
        let mut connected = false;
        let probe = self.run_background(async |connection| {
            connected = true;
            if full {
                sqlx::raw_sql(DISK_PROBE).execute(&mut *connection).await?;
            }
            let probe = AssertSqlSafe(format!("SELECT {SERVES}, {INCARNATION}"));
            let (serves, incarnation): (bool, String) = sqlx::query_as(probe).fetch_one(connection).await?;
            self.connector.incarnation().note(&incarnation);
            Ok(serves)
        });
        let probed = timeout(patience, probe).await;
        match probed {
            Ok(Ok(true)) => {
                self.state.full.fetch_and(!full, Ordering::Relaxed);
                self.state.found_well();
                true
            }
            Ok(Ok(false)) => {
                self.state.note(start::READ_ONLY);
                false
            }
            Ok(Err(fault)) => {
                if fault.cause().is_none() {
                    self.state.note(fault.describe());
                }
                false
            }
            Err(_) => {
                if !connected {
                    let patience = humantime::Duration::from(patience);
                    let cause = Cause::timeout(format!("no connection for a probe within {patience}"));
                    self.state.judge(Fault::Away(cause.at(&self.connector.address())));
                }
                false
            }
        }
    }

    /// Calls a function with the incarnation of the database, and with each other one: it changes
    /// whenever Postgres may have lost commits. The function must not block. Only the first call
    /// has an effect.
    ///
    /// A connection is used only after the function has received its incarnation. Through a pooler,
    /// which may change the server behind a connection, the next probe notices a change.
    pub fn on_incarnation(&self, listener: impl Fn(&str) + Send + Sync + 'static) {
        self.connector.incarnation().listen(listener);
    }

    /// Returns true if the latest work sent to Postgres received a response.
    pub fn answers(&self) -> bool {
        self.state.answers.load(Ordering::Relaxed)
    }

    /// Returns the reason why Postgres could not be used when last used or probed, if it could not.
    pub fn problem(&self) -> Option<String> {
        self.state.problem.lock().as_ref().map(ToString::to_string)
    }

    /// Waits for running work, then closes all connections.
    pub async fn close(&self) {
        self.callers.close().await;
        self.background.close().await;
    }

    async fn run_on<T>(
        &self,
        pool: &Arc<ConnectionPool>,
        permit: Option<OwnedSemaphorePermit>,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, WorkFailure> {
        if !self.state.open.load(Ordering::Relaxed) {
            let problem = self.state.problem.lock().clone();
            let cause = problem.unwrap_or_else(|| Cause::new("not checked yet"));
            return Err(pool.metrics().failed(Fault::Away(cause)).into());
        }
        // Boxed because the future has kilobytes, which every caller that might use Postgres would
        // embed.
        Box::pin(self.work_on(pool, permit, work)).await
    }

    async fn work_on<T>(
        &self,
        pool: &Arc<ConnectionPool>,
        permit: Option<OwnedSemaphorePermit>,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, WorkFailure> {
        let failed = |fault| Err(pool.metrics().failed(self.state.judge(fault)).into());
        let waiting_since = Instant::now();
        let acquired = pool.acquire().await;
        pool.metrics().waited(waiting_since);
        let live = match acquired {
            Ok(live) => live,
            Err(fault) => {
                if fault.is_away() {
                    self.suspect();
                }
                return failed(fault);
            }
        };
        pool.update_connections();
        let mut pooled = PooledConnection::new(live, permit, self.work_limit);
        let start = Instant::now();
        let worked = timeout(self.work_limit, self.work_in_session(pooled.connection(), work)).await;
        pool.metrics().worked(start);
        match worked {
            Ok(Ok(done)) => {
                pooled.mark_done();
                self.state.found_answering();
                Ok(done)
            }
            Ok(Err(error)) => {
                let fault = Fault::of_work(error);
                if fault.lost_connection() {
                    // One lost connection is no outage; the others are checked before use.
                    self.suspect();
                    return Err(WorkFailure { fault: pool.metrics().failed(fault), lost_connection: true });
                }
                failed(fault)
            }
            Err(_) => {
                pooled.close();
                let limit = humantime::Duration::from(self.work_limit);
                let cause = Cause::timeout(format!("no response within {limit}"));
                failed(Fault::Ambiguous(cause.at(&self.connector.address())))
            }
        }
    }

    /// Makes both pools check their connections before use: they may be dead as well.
    fn suspect(&self) {
        self.callers.suspect();
        self.background.suspect();
    }

    /// Runs work, in a transaction that carries the settings if the session cannot.
    async fn work_in_session<T>(
        &self,
        connection: &mut PgConnection,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let Some(begin) = self.connector.session().begin() else {
            return work(connection).await;
        };
        let mut transaction = connection.begin_with(AssertSqlSafe(begin)).await?;
        let done = work(&mut transaction).await?;
        transaction.commit().await?;
        Ok(done)
    }
}
