//! A lane: one multiplexed connection, shared by all callers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use deadpool_redis::Connection as PoolConnection;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ServerErrorKind, Value};
use tokio::sync::watch;

use crate::args::Role;
use crate::breaker::{Breaker, BreakerGeneration};
use crate::error::{Error, OUT_OF_MEMORY, REFUSES_WRITES, has_code};
use crate::incarnation::Incarnation;
use crate::metrics::Metrics;
use crate::script::Call;
use crate::write_outcome::WriteOutcome;

/// Consecutive unanswered calls after which a connection is abandoned; the driver never does this.
const UNANSWERED_MAX: u32 = 20;

/// Expiry of the key that a probe writes, in ms.
const PROBE_TTL: u64 = 1000;

/// The connection of a lane.
pub(crate) struct Connection {
    multiplexed: MultiplexedConnection,
    /// Prefix of every channel: `<prefix>:<service>:`.
    channels: Arc<str>,
    /// Prefix of every key: the same, followed by the incarnation for a cache.
    keys: Arc<str>,
    incarnation: Incarnation,
    role: Role,
    pub(crate) breaker: Arc<Breaker>,
    metrics: Arc<Metrics>,
    unanswered: AtomicU32,
    broken: watch::Sender<bool>,
}

impl Connection {
    pub(crate) fn new(
        pooled: PoolConnection,
        channels: Arc<str>,
        incarnation: Incarnation,
        role: Role,
        (breaker, metrics): (Arc<Breaker>, Arc<Metrics>),
    ) -> Self {
        let keys = match role {
            Role::Cache => format!("{channels}{incarnation}:").into(),
            Role::State => Arc::clone(&channels),
        };
        Self {
            // Never returned to the pool: it is broken when its lane ends, and calls in flight must
            // not keep its slot.
            multiplexed: PoolConnection::take(pooled),
            channels,
            keys,
            incarnation,
            role,
            breaker,
            metrics,
            unanswered: AtomicU32::new(0),
            broken: watch::Sender::new(false),
        }
    }

    /// Returns a handle to the multiplexed connection.
    pub(crate) fn handle(&self) -> MultiplexedConnection {
        self.multiplexed.clone()
    }

    /// Returns the incarnation of the server.
    pub(crate) fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    /// Returns true if the connection must not be used any more.
    pub(crate) fn is_broken(&self) -> bool {
        *self.broken.borrow()
    }

    /// Marks the connection as unusable.
    pub(crate) fn abandon(&self) {
        self.broken.send_replace(true);
    }

    /// Waits until the connection is marked as unusable.
    pub(crate) async fn broken(&self) {
        let mut broken = self.broken.subscribe();
        let _ = broken.wait_for(|broken| *broken).await;
    }

    /// Updates breaker, connection and metrics from the result of a call of this generation.
    fn record<T>(&self, generation: BreakerGeneration, reply: Result<T, RedisError>) -> Result<T, Error> {
        let error = match reply {
            Ok(value) => {
                self.breaker.answered(generation);
                self.unanswered.store(0, Ordering::Relaxed);
                return Ok(value);
            }
            Err(error) => error,
        };
        let tolerated = |code| self.role == Role::State && code == OUT_OF_MEMORY;
        let unwritable = REFUSES_WRITES.iter().any(|code| !tolerated(*code) && has_code(&error, code));
        let unresponsive = error.is_timeout() && self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= UNANSWERED_MAX;
        let closed = !error.is_timeout() && (error.is_unrecoverable_error() || error.is_connection_dropped());
        if unresponsive || unwritable || closed {
            self.abandon();
        }
        match Error::from_redis(error) {
            Error::Unanswered(cause) => {
                self.breaker.failed(generation, cause.is_timeout());
                Err(self.metrics.failed(Error::Unanswered(cause)))
            }
            answered => {
                self.breaker.answered(generation);
                Err(self.metrics.failed(answered))
            }
        }
    }

    /// Like [`Connection::record`], and converts the reply. A reply of an unexpected type does not
    /// condemn the connection, as it would in the driver.
    fn read<T: FromRedisValue>(
        &self,
        generation: BreakerGeneration,
        reply: Result<Value, RedisError>,
    ) -> Result<T, Error> {
        let value = self.record(generation, reply)?;
        T::from_redis_value(value).map_err(|error| self.metrics.failed(Error::Refused(error.into())))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// A lane in use by one call. All its cache keys belong to one incarnation.
#[derive(Debug)]
pub struct Lane {
    shared: Arc<Connection>,
    connection: MultiplexedConnection,
    generation: BreakerGeneration,
}

impl Lane {
    pub(crate) fn new(shared: &Arc<Connection>, generation: BreakerGeneration) -> Self {
        Self { shared: Arc::clone(shared), connection: shared.handle(), generation }
    }

    /// Returns the full key of `name`: `<prefix>:<service>:<incarnation>:<name>` for a cache,
    /// `<prefix>:<service>:<name>` for state.
    pub fn key(&self, name: fmt::Arguments<'_>) -> String {
        format!("{}{name}", self.shared.keys)
    }

    /// Returns the full name of a pub/sub channel that a [`Subscriber`](crate::Subscriber) knows as
    /// `name`. It is the same in every incarnation.
    pub fn channel(&self, name: fmt::Arguments<'_>) -> String {
        format!("{}{name}", self.shared.channels)
    }

    /// Returns the incarnation of this lane, for scripts to compare: it may change on an open
    /// connection.
    pub fn incarnation(&self) -> &Incarnation {
        self.shared.incarnation()
    }

    /// Abandons the lane because a script found another incarnation. Returns the error for the
    /// call.
    pub fn mark_stale(&self) -> Error {
        self.shared.abandon();
        self.shared.metrics.failed(Error::Away)
    }

    /// Sends a read command.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn send<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, Error> {
        let start = Instant::now();
        let reply = command.query_async(&mut self.connection).await;
        self.shared.metrics.command.record(start.elapsed());
        self.shared.read(self.generation, reply)
    }

    /// Sends a write command.
    pub async fn send_write<T: FromRedisValue>(&mut self, command: &Cmd) -> WriteOutcome<T> {
        WriteOutcome::of_one(self.send(command).await)
    }

    /// Verifies that the server accepts writes.
    pub(crate) async fn health_check(&mut self) -> Result<(), Error> {
        let probe = write_probe(&self.shared.channels);
        self.send(&probe).await
    }

    /// Runs a script that only reads.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn read<T: FromRedisValue>(&mut self, call: &Call<'_>) -> Result<T, Error> {
        let command = call.command();
        let start = Instant::now();
        let mut reply = command.query_async(&mut self.connection).await;
        if reply.as_ref().is_err_and(is_not_loaded) {
            self.load(call).await?;
            reply = command.query_async(&mut self.connection).await;
        }
        self.shared.metrics.script.record(start.elapsed());
        self.shared.read(self.generation, reply)
    }

    /// Runs calls of scripts that only read, in one round trip. Returns their replies in order. Not
    /// atomic.
    ///
    /// # Errors
    /// [`Error`], if any of them fails.
    pub async fn read_all<T: FromRedisValue>(&mut self, calls: &[Call<'_>]) -> Result<Vec<T>, Error> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        self.run_all(calls, &pipeline(calls)).await
    }

    /// Sends a pipeline that contains these calls; loads missing scripts and sends it again.
    async fn run_all<T: FromRedisValue>(&mut self, calls: &[Call<'_>], pipeline: &Pipeline) -> Result<Vec<T>, Error> {
        let start = Instant::now();
        let mut reply = pipeline.query_async(&mut self.connection).await;
        // One load suffices if all calls use one script, the usual case.
        for call in calls {
            let Err(error) = &reply else { break };
            if !is_not_loaded(error) {
                break;
            }
            self.load(call).await?;
            reply = pipeline.query_async(&mut self.connection).await;
        }
        self.shared.metrics.scripts.record(start.elapsed());
        self.shared.read(self.generation, reply)
    }

    /// Runs a script that writes.
    pub async fn write<T: FromRedisValue>(&mut self, call: &Call<'_>) -> WriteOutcome<T> {
        WriteOutcome::of_one(self.read(call).await)
    }

    /// Runs calls of scripts that write, in one round trip. Returns their replies in order. Not
    /// atomic; a call may run twice.
    pub async fn write_all<T: FromRedisValue>(&mut self, calls: &[Call<'_>]) -> WriteOutcome<Vec<T>> {
        WriteOutcome::of_many(self.read_all(calls).await)
    }

    /// Like [`Lane::write_all`], followed by another command in the same round trip, whose reply is
    /// ignored. The command may run although a call was refused, and may run twice.
    pub async fn write_all_then<T: FromRedisValue>(&mut self, calls: &[Call<'_>], then: Cmd) -> WriteOutcome<Vec<T>> {
        let mut pipeline = pipeline(calls);
        pipeline.add_command(then).ignore();
        WriteOutcome::of_many(self.run_all(calls, &pipeline).await)
    }

    /// Like [`Lane::write_all`], for calls of one script that must not run twice. They are sent
    /// again only if the server ran none of them. The outcome is also unknown if the script was
    /// loaded while they arrived, so that some of them ran.
    pub async fn write_all_once<T: FromRedisValue>(&mut self, calls: &[Call<'_>]) -> WriteOutcome<Vec<T>> {
        WriteOutcome::of_many(self.run_all_once(calls).await)
    }

    async fn run_all_once<T: FromRedisValue>(&mut self, calls: &[Call<'_>]) -> Result<Vec<T>, Error> {
        let Some(first) = calls.first() else {
            return Ok(Vec::new());
        };
        let pipeline = pipeline(calls);
        let start = Instant::now();
        let mut reply = pipeline.query_async(&mut self.connection).await;
        if let Err(error) = &reply {
            match count_not_loaded(error) {
                0 => {}
                count if count == calls.len() => {
                    self.load(first).await?;
                    reply = pipeline.query_async(&mut self.connection).await;
                }
                _ => return Err(self.shared.metrics.failed(Error::Unanswered(error.clone()))),
            }
        }
        self.shared.metrics.scripts.record(start.elapsed());
        self.shared.read(self.generation, reply)
    }

    /// Loads the script of a call.
    async fn load(&mut self, call: &Call<'_>) -> Result<(), Error> {
        let loaded = call.script().load_async(&mut self.connection).await;
        self.shared.record(self.generation, loaded).map(drop)
    }
}

/// Returns a harmless write, to the key `proof` behind the common prefix.
pub(crate) fn write_probe(channels: &str) -> Cmd {
    let mut set = redis::cmd("SET");
    set.arg(format!("{channels}proof")).arg("").arg("PX").arg(PROBE_TTL);
    set
}

fn pipeline(calls: &[Call<'_>]) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(calls.len());
    for call in calls {
        pipeline.add_command(call.command());
    }
    pipeline
}

/// Returns true if the script of a call is not loaded.
fn is_not_loaded(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Counts the calls of a pipeline whose script is not loaded.
fn count_not_loaded(error: &RedisError) -> usize {
    let errors = error.clone().into_server_errors();
    errors.map_or(0, |errors| errors.iter().filter(|(_, error)| error.code() == "NOSCRIPT").count())
}
