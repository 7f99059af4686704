//! Two pools with their limits, and the one way through which all work goes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::lent::Lent;
use crate::numbers::Numbers;
use crate::start::{StartError, check_version};
use crate::{Args, Bulkhead, Fault};

/// Connections for relays and sweeps.
const BACKGROUND_CONNECTIONS: u32 = 4;
/// How much longer than Postgres we wait for a statement before we give the connection up.
const GRACE: Duration = Duration::from_millis(500);
/// A connection is renewed after so long, so that load moves when servers behind one name change.
const LIFETIME: Duration = Duration::from_mins(30);

/// Asks for a little room on the disk where the tables are, and gives it back at once.
const ROOM: &str =
    "CREATE TEMPORARY TABLE tidings_room ON COMMIT DROP AS SELECT repeat('room', 100) FROM generate_series(1, 100)";

/// The pools of one service on one database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Postgres {
    /// Where it is, for people.
    place: String,
    callers: Arc<Pool>,
    background: Arc<Pool>,
    /// The connections for what callers wait for, and how long one is waited for.
    limits: (u32, Duration),
    work_limit: Duration,
    state: Arc<State>,
}

/// One pool, and what is counted of it.
#[derive(Debug)]
pub(crate) struct Pool {
    pool: PgPool,
    numbers: Numbers,
}

impl Pool {
    /// Looks how many connections there are, after one came or went.
    pub(crate) fn look(&self) {
        self.numbers.look(&self.pool);
    }
}

/// What is known of the server, by both pools.
#[derive(Debug, Default)]
struct State {
    /// Whether it was found to be one that we may work on.
    open: AtomicBool,
    answers: AtomicBool,
    /// Whether it had no room when it was last asked for some.
    full: AtomicBool,
    /// When it was last found to be away.
    away: Mutex<Option<Instant>>,
}

impl State {
    fn found_away(&self) {
        self.answers.store(false, Ordering::Relaxed);
        *self.away.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether the server was away since `age` ago.
    fn was_away_within(&self, age: Duration) -> bool {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|away| away.elapsed() <= age)
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

    /// The pools of a database that nobody has looked at yet: until [`Postgres::open`] all work is answered at once as if it
    /// was away, so that a service can be there before its database, and none works on a database that is not right.
    pub fn closed(args: &Args, application: &str) -> Self {
        let statement = *args.postgres_statement_timeout;
        let acquire = *args.postgres_acquire_timeout;
        let options = args.postgres_url.options().clone().application_name(application).options([
            ("statement_timeout", statement.as_millis().to_string()),
            ("lock_timeout", (statement / 2).as_millis().to_string()),
            ("idle_in_transaction_session_timeout", "5000".to_owned()),
        ]);
        let state = Arc::new(State::default());
        let pool = |name, connections| {
            let state = Arc::clone(&state);
            let pool = PgPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(acquire)
                .max_lifetime(LIFETIME)
                .test_before_acquire(false) // a round trip for each statement
                // Instead, what was there before an outage is not used after it: most of it is dead.
                .before_acquire(move |_, about| {
                    let usable = !state.was_away_within(about.age);
                    Box::pin(async move { Ok(usable) })
                })
                .connect_lazy_with(options.clone());
            Arc::new(Pool { pool, numbers: Numbers::new(name) })
        };
        Self {
            place: args.postgres_url.to_string(),
            callers: pool("callers", args.postgres_connections),
            background: pool("background", BACKGROUND_CONNECTIONS),
            limits: (args.postgres_connections, acquire),
            work_limit: acquire + statement + GRACE,
            state,
        }
    }

    /// Checks the server's version; from then on work is done.
    ///
    /// # Errors
    /// [`StartError`] if nobody answers within the acquire time-out, or the server is too old.
    pub async fn open(&self) -> Result<(), StartError> {
        let looked =
            self.work_on(&self.callers, None, async |connection| Ok(check_version(connection, &self.place))).await;
        looked.map_err(|fault| match fault {
            // Nobody else uses the pool.
            Fault::Exhausted => StartError::Connect(self.place.clone(), Fault::Away(None)),
            fault => StartError::Connect(self.place.clone(), fault),
        })??;
        self.state.open.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Runs work that a caller waits for, on a connection of its own for as long.
    ///
    /// If the work takes longer than the limits, its connection is closed: nothing that was not committed stays. If the
    /// future is dropped, the statement under way may still be done; its connection is used again after the answer to
    /// it, or closed if none comes.
    ///
    /// # Errors
    /// [`Fault`]. After [`Fault::Ambiguous`] a commit may or may not have been done.
    pub async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Fault> {
        self.run_on(&self.callers, None, work).await
    }

    /// The same, in a place of a part of the connections.
    pub(crate) async fn run_in<T>(
        &self,
        place: OwnedSemaphorePermit,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Fault> {
        self.run_on(&self.callers, Some(place), work).await
    }

    /// `percent` of the connections for what callers wait for, as a part of its own.
    pub fn bulkhead(&self, percent: u32) -> Bulkhead {
        Bulkhead::new(self.clone(), percent)
    }

    pub(crate) fn callers_limits(&self) -> (u32, Duration) {
        self.limits
    }

    /// Concludes that work found no place in its part of the connections.
    pub(crate) fn no_place(&self) -> Fault {
        self.callers.numbers.failed(self.judge(Fault::Exhausted))
    }

    /// Runs work that nobody waits for, on the connections kept for such work.
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

    /// Asks Postgres for a sign of life within `patience`, on the connections kept for work that nobody waits for. Of one that
    /// was found full it is asked whether it has room again.
    ///
    /// That no such connection could be had is as good as an answer, also if it was waited for less than work would: a service
    /// without a relay has no other way to hear of it.
    pub async fn ping(&self, patience: Duration) -> bool {
        let full = self.state.full.load(Ordering::Relaxed);
        let question = if full { ROOM } else { "SELECT 1" };
        let mut connected = false;
        let asking = self.run_background(async |connection| {
            connected = true;
            sqlx::raw_sql(question).execute(connection).await
        });
        let asked = timeout(patience, asking).await;
        if asked.is_err() && !connected {
            self.judge(Fault::Away(None));
        }
        let answered = matches!(asked, Ok(Ok(_)));
        if full && answered {
            self.state.full.store(false, Ordering::Relaxed);
        }
        answered
    }

    /// Whether the last work that anybody sent to Postgres was answered.
    pub fn answers(&self) -> bool {
        self.state.answers.load(Ordering::Relaxed)
    }

    /// Closes all connections, after the work on them.
    pub async fn close(&self) {
        self.callers.pool.close().await;
        self.background.pool.close().await;
    }

    async fn run_on<T>(
        &self,
        pool: &Arc<Pool>,
        place: Option<OwnedSemaphorePermit>,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Fault> {
        if !self.state.open.load(Ordering::Relaxed) {
            return Err(pool.numbers.failed(Fault::Away(None)));
        }
        // In a box, because it takes kilobytes: every call that might come to ask Postgres would carry them about.
        Box::pin(self.work_on(pool, place, work)).await
    }

    async fn work_on<T>(
        &self,
        pool: &Arc<Pool>,
        place: Option<OwnedSemaphorePermit>,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Fault> {
        let failed = |fault| Err(pool.numbers.failed(self.judge(fault)));
        let asked = Instant::now();
        let acquired = pool.pool.acquire().await;
        pool.numbers.waited(asked);
        let connection = match acquired {
            Ok(connection) => connection,
            Err(error) => return failed(Fault::from(error)),
        };
        let mut lent = Lent::new(connection, place, self.work_limit, pool);
        let begun = Instant::now();
        let worked = timeout(self.work_limit, work(lent.connection())).await;
        pool.numbers.worked(begun);
        match worked {
            Ok(Ok(done)) => {
                self.state.answers.store(true, Ordering::Relaxed);
                Ok(done)
            }
            Ok(Err(error)) => failed(Fault::of_work(error)),
            Err(_) => {
                lent.close();
                failed(Fault::Ambiguous(None))
            }
        }
    }

    /// Remembers that Postgres is away. The pool's time-out alone does not say it: sqlx waits for a server that refuses
    /// connections just as for a connection that is busy. The background pool, which is never short of connections and
    /// asked by a relay four times a second, tells the two apart.
    fn judge(&self, fault: Fault) -> Fault {
        match fault {
            Fault::Exhausted if !self.answers() => Fault::Away(None),
            Fault::Away(Some(_)) | Fault::Ambiguous(Some(_)) => {
                self.state.found_away();
                fault
            }
            // Concluded from a wait, which says nothing of the other connections: it may be this one work that takes too
            // long, or the machine that is busy.
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
