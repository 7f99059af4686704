//! A lane: one multiplexed connection, shared by all callers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ServerErrorKind, Value};
use tokio::sync::watch;

use crate::args::Role;
use crate::breaker::{Breaker, BreakerGeneration};
use crate::error::{Error, OUT_OF_MEMORY, REFUSES_WRITES, has_code};
use crate::incarnation::Incarnation;
use crate::metrics::Metrics;
use crate::script::Call;
use crate::source::SourceIncarnation;
use crate::transfer::{Transfer, command_bytes, pipeline_bytes};
use crate::write_outcome::WriteOutcome;

/// Consecutive unanswered calls after which a connection is abandoned; the driver never does this.
const UNANSWERED_MAX: u32 = 20;

/// Size of a script, for the wait until it is loaded.
const SCRIPT_BYTES: usize = 4096;

/// Expiry of the key that a probe writes, in ms.
const PROBE_TTL: u64 = 1000;

/// Prefixes of the names of one service.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// Prefix of every key, before the incarnation: `<prefix>:<service>:`.
    pub(crate) keys: Arc<str>,
    /// Prefix of every channel: that of keys, and the number of another database than 0.
    pub(crate) channels: Arc<str>,
    /// The incarnation of the database that a cache copies, behind that of the server.
    pub(crate) source: SourceIncarnation,
}

/// Time and traffic of the calls on all lanes of one Redis.
#[derive(Clone, Debug)]
pub(crate) struct Waits {
    /// Longest wait for a reply, before the time that its bytes take.
    pub(crate) limit: Duration,
    pub(crate) transfer: Transfer,
}

/// The connection of a lane.
pub(crate) struct Connection {
    multiplexed: MultiplexedConnection,
    names: Names,
    /// Prefix of every key: that of the names, followed by the incarnation for a cache.
    keys: Arc<str>,
    incarnation: Incarnation,
    role: Role,
    pub(crate) breaker: Arc<Breaker>,
    metrics: Arc<Metrics>,
    waits: Waits,
    unanswered: AtomicU32,
    /// The feature that is off for want of a permission; empty if none is.
    restriction: Mutex<Arc<str>>,
    broken: watch::Sender<bool>,
}

impl Connection {
    pub(crate) fn new(
        multiplexed: MultiplexedConnection,
        names: Names,
        incarnation: Incarnation,
        role: Role,
        waits: Waits,
        (breaker, metrics): (Arc<Breaker>, Arc<Metrics>),
    ) -> Self {
        let keys = match role {
            Role::Cache => format!("{}{incarnation}:", names.keys).into(),
            Role::State => Arc::clone(&names.keys),
        };
        Self {
            multiplexed,
            names,
            keys,
            incarnation,
            role,
            breaker,
            metrics,
            waits,
            unanswered: AtomicU32::new(0),
            restriction: Mutex::default(),
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

    /// Returns the feature that is off for want of a permission; empty if none is.
    pub(crate) fn restriction(&self) -> Arc<str> {
        Arc::clone(&self.restriction.lock())
    }

    /// Sets the feature that is off, and logs a change.
    pub(crate) fn restrict(&self, restriction: &str) {
        let mut known = self.restriction.lock();
        if **known == *restriction {
            return;
        }
        if restriction.is_empty() {
            tracing::info!(was = &**known, "redis permissions are complete");
        } else {
            tracing::warn!(restriction, "redis permission missing");
        }
        *known = restriction.into();
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
    /// Bytes of the expected reply.
    reply_bytes: usize,
    /// Part of the keys of this call: all of them belong to one incarnation of the database.
    source: Arc<str>,
}

impl Lane {
    pub(crate) fn new(shared: &Arc<Connection>, generation: BreakerGeneration) -> Self {
        let source = shared.names.source.part();
        Self { shared: Arc::clone(shared), connection: shared.handle(), generation, reply_bytes: 0, source }
    }

    /// Returns the full key of `name`: `<prefix>:<service>:<incarnation>:<source>:<name>` for a
    /// cache, where the source is the incarnation of its database, and `<prefix>:<service>:<name>`
    /// for state.
    pub fn key(&self, name: fmt::Arguments<'_>) -> String {
        format!("{}{}{name}", self.shared.keys, self.source)
    }

    /// Returns the full name of a pub/sub channel that a [`Subscriber`](crate::Subscriber) knows as
    /// `name`. It is the same in every incarnation.
    pub fn channel(&self, name: fmt::Arguments<'_>) -> String {
        format!("{}{name}", self.shared.names.channels)
    }

    /// Sets the size that the replies to the following calls may have together, if they are large:
    /// the wait for them grows with it.
    pub fn expect_bytes(&mut self, bytes: usize) {
        self.reply_bytes = bytes;
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
        let reply = self.query(command).await;
        self.shared.metrics.command.record(start.elapsed());
        self.shared.read(self.generation, reply)
    }

    /// Sends a write command.
    pub async fn send_write<T: FromRedisValue>(&mut self, command: &Cmd) -> WriteOutcome<T> {
        WriteOutcome::of_one(self.send(command).await)
    }

    /// Verifies that the server accepts writes.
    pub(crate) async fn health_check(&mut self) -> Result<(), Error> {
        let probe = write_probe(&self.shared.names.keys);
        self.send(&probe).await
    }

    /// Runs a script that only reads.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn read<T: FromRedisValue>(&mut self, call: &Call<'_>) -> Result<T, Error> {
        let command = call.command();
        let start = Instant::now();
        let mut reply = self.query(&command).await;
        if reply.as_ref().is_err_and(is_not_loaded) {
            self.load(call).await?;
            reply = self.query(&command).await;
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
        let mut reply = self.query_all(pipeline).await;
        // One load suffices if all calls use one script, the usual case.
        for call in calls {
            let Err(error) = &reply else { break };
            if !is_not_loaded(error) {
                break;
            }
            self.load(call).await?;
            reply = self.query_all(pipeline).await;
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
        let mut reply = self.query_all(&pipeline).await;
        if let Err(error) = &reply {
            match count_not_loaded(error) {
                0 => {}
                count if count == calls.len() => {
                    self.load(first).await?;
                    reply = self.query_all(&pipeline).await;
                }
                _ => return Err(self.shared.metrics.failed(Error::Unanswered(error.clone()))),
            }
        }
        self.shared.metrics.scripts.record(start.elapsed());
        self.shared.read(self.generation, reply)
    }

    /// Loads the script of a call.
    async fn load(&mut self, call: &Call<'_>) -> Result<(), Error> {
        let Waits { limit, transfer } = &self.shared.waits;
        let loaded = transfer.reply(*limit, SCRIPT_BYTES, call.script().load_async(&mut self.connection)).await;
        self.shared.record(self.generation, loaded).map(drop)
    }

    async fn query(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        let Waits { limit, transfer } = &self.shared.waits;
        let bytes = command_bytes(command) + self.reply_bytes;
        transfer.reply(*limit, bytes, command.query_async(&mut self.connection)).await
    }

    async fn query_all(&mut self, pipeline: &Pipeline) -> Result<Value, RedisError> {
        let Waits { limit, transfer } = &self.shared.waits;
        let bytes = pipeline_bytes(pipeline) + self.reply_bytes;
        transfer.reply(*limit, bytes, pipeline.query_async(&mut self.connection)).await
    }
}

/// Returns a harmless write, to the key `proof` behind the common prefix.
pub(crate) fn write_probe(keys: &str) -> Cmd {
    let mut set = redis::cmd("SET");
    set.arg(format!("{keys}proof")).arg("").arg("PX").arg(PROBE_TTL);
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
