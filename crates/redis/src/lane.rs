//! One multiplexed connection, shared by all callers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use deadpool_redis::Connection;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ServerErrorKind, Value};
use tokio::sync::watch;

use crate::breaker::{Breaker, Term};
use crate::numbers::Numbers;
use crate::{Call, Error, Role, Written};

/// After so many unanswered calls in a row a connection is given up: the driver itself never does.
const UNANSWERED_MAX: u32 = 20;

/// How long, in ms, the key stays that a probe writes.
const PROOF_LIFE: u64 = 1000;

/// The answers of a server that takes no writes; it would go on answering reads with what nobody can correct.
pub(crate) const REFUSES_WRITES: [&str; 4] = [OUT_OF_MEMORY, "READONLY", "MISCONF", "NOREPLICAS"];

/// The answer of a server that has no memory for this; scripts that free something are run all the same.
pub(crate) const OUT_OF_MEMORY: &str = "OOM";

/// Whether a server answered one of these calls, or the only one, with this code.
pub(crate) fn says(error: &RedisError, code: &str) -> bool {
    error.clone().into_server_errors().is_some_and(|errors| errors.iter().any(|(_, error)| error.code() == code))
}

/// A connected lane.
pub(crate) struct Live {
    connection: MultiplexedConnection,
    /// What every channel begins with: `<prefix>:<service>:`.
    channels: Arc<str>,
    /// What every key begins with: the same, and for a cache the reign.
    keys: Arc<str>,
    reign: Arc<str>,
    role: Role,
    pub(crate) breaker: Arc<Breaker>,
    numbers: Arc<Numbers>,
    unanswered: AtomicU32,
    broken: watch::Sender<bool>,
}

impl Live {
    pub(crate) fn new(
        pooled: Connection,
        channels: Arc<str>,
        reign: Arc<str>,
        role: Role,
        (breaker, numbers): (Arc<Breaker>, Arc<Numbers>),
    ) -> Self {
        let keys = match role {
            Role::Cache => format!("{channels}{reign}:").into(),
            Role::State => Arc::clone(&channels),
        };
        Self {
            // Out of the pool for good: it is broken when its lane ends, and calls under way must not keep its place.
            connection: Connection::take(pooled),
            channels,
            keys,
            reign,
            role,
            breaker,
            numbers,
            unanswered: AtomicU32::new(0),
            broken: watch::Sender::new(false),
        }
    }

    /// The connection, for a call of its own.
    pub(crate) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    /// The reign of the server.
    pub(crate) fn reign(&self) -> &Arc<str> {
        &self.reign
    }

    /// Whether the connection is of no use any more.
    pub(crate) fn is_broken(&self) -> bool {
        *self.broken.borrow()
    }

    /// Says that the connection is of no use any more.
    pub(crate) fn give_up(&self) {
        self.broken.send_replace(true);
    }

    /// Waits until the connection is of no use any more.
    pub(crate) async fn broken(&self) {
        let mut broken = self.broken.subscribe();
        let _ = broken.wait_for(|broken| *broken).await;
    }

    /// Draws the conclusions of an answer, or of none, to a call of this term.
    fn judge<T>(&self, term: Term, answer: Result<T, RedisError>) -> Result<T, Error> {
        let error = match answer {
            Ok(value) => {
                self.breaker.answered(term);
                self.unanswered.store(0, Ordering::Relaxed);
                return Ok(value);
            }
            Err(error) => error,
        };
        let bears = |code| self.role == Role::State && code == OUT_OF_MEMORY;
        let unwritable = REFUSES_WRITES.iter().any(|code| !bears(*code) && says(&error, code));
        let silent = error.is_timeout() && self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= UNANSWERED_MAX;
        let closed = !error.is_timeout() && (error.is_unrecoverable_error() || error.is_connection_dropped());
        if silent || unwritable || closed {
            self.give_up();
        }
        match Error::from_redis(error) {
            Error::Unanswered(cause) => {
                self.breaker.failed(term, cause.is_timeout());
                Err(self.numbers.failed(Error::Unanswered(cause)))
            }
            answered => {
                self.breaker.answered(term);
                Err(self.numbers.failed(answered))
            }
        }
    }

    /// Like [`Live::judge`], and reads the answer. That it is of another shape than the caller expects is no fault of
    /// the connection: the driver would call it one.
    fn read<T: FromRedisValue>(&self, term: Term, answer: Result<Value, RedisError>) -> Result<T, Error> {
        let value = self.judge(term, answer)?;
        T::from_redis_value(value).map_err(|error| self.numbers.failed(Error::Refused(error.into())))
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// A lane in the hands of one call: all keys of a cache are of one reign.
#[derive(Debug)]
pub struct Lane {
    live: Arc<Live>,
    connection: MultiplexedConnection,
    term: Term,
}

impl Lane {
    pub(crate) fn new(live: &Arc<Live>, term: Term) -> Self {
        Self { live: Arc::clone(live), connection: live.connection(), term }
    }

    /// A key of the service: `<prefix>:<service>:<reign>:<name>` of a cache, `<prefix>:<service>:<name>` of a state.
    pub fn key(&self, name: fmt::Arguments<'_>) -> String {
        format!("{}{name}", self.live.keys)
    }

    /// A pub/sub channel of the service, the same in every reign: what a [`Subscriber`](crate::Subscriber) knows as `name`.
    pub fn channel(&self, name: fmt::Arguments<'_>) -> String {
        format!("{}{name}", self.live.channels)
    }

    /// The reign of this lane, for scripts that make sure of it: a server may begin another while the connection stays.
    pub fn reign(&self) -> &Arc<str> {
        self.live.reign()
    }

    /// Says that a script met another reign than this lane's, so that nobody uses the lane any more.
    pub fn outlived(&self) -> Error {
        self.live.give_up();
        self.live.numbers.failed(Error::Away)
    }

    /// Sends one command, which reads.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn send<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, Error> {
        let begun = Instant::now();
        let answer = command.query_async(&mut self.connection).await;
        self.live.numbers.command.record(begun.elapsed());
        self.live.read(self.term, answer)
    }

    /// Sends one command, which writes.
    pub async fn send_write<T: FromRedisValue>(&mut self, command: &Cmd) -> Written<T> {
        Written::of_one(self.send(command).await)
    }

    /// Lets the server prove that it takes a write.
    pub(crate) async fn prove(&mut self) -> Result<(), Error> {
        let proof = proof(&self.live.channels);
        self.send(&proof).await
    }

    /// Runs one script, which reads.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn read<T: FromRedisValue>(&mut self, call: &Call<'_>) -> Result<T, Error> {
        let command = call.command();
        let begun = Instant::now();
        let mut answer = command.query_async(&mut self.connection).await;
        if answer.as_ref().is_err_and(is_unknown) {
            self.load(call).await?;
            answer = command.query_async(&mut self.connection).await;
        }
        self.live.numbers.script.record(begun.elapsed());
        self.live.read(self.term, answer)
    }

    /// Runs many calls of scripts, which read, in one round trip and returns their answers in order. Not atomic.
    ///
    /// # Errors
    /// [`Error`], if any of them fails.
    pub async fn read_all<T: FromRedisValue>(&mut self, calls: &[Call<'_>]) -> Result<Vec<T>, Error> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        self.run_all(calls, &pipeline(calls)).await
    }

    /// Sends a pipeline that has these calls, and lets the server know their scripts if it does not.
    async fn run_all<T: FromRedisValue>(&mut self, calls: &[Call<'_>], pipeline: &Pipeline) -> Result<Vec<T>, Error> {
        let begun = Instant::now();
        let mut answer = pipeline.query_async(&mut self.connection).await;
        // One load is enough for calls of one script, as most lists are.
        for call in calls {
            let Err(error) = &answer else { break };
            if !is_unknown(error) {
                break;
            }
            self.load(call).await?;
            answer = pipeline.query_async(&mut self.connection).await;
        }
        self.live.numbers.scripts.record(begun.elapsed());
        self.live.read(self.term, answer)
    }

    /// Runs one script, which writes.
    pub async fn write<T: FromRedisValue>(&mut self, call: &Call<'_>) -> Written<T> {
        Written::of_one(self.read(call).await)
    }

    /// Runs many calls of scripts, which write, in one round trip and returns their answers in order. Not atomic. Some may be
    /// run twice.
    pub async fn write_all<T: FromRedisValue>(&mut self, calls: &[Call<'_>]) -> Written<Vec<T>> {
        Written::of_many(self.read_all(calls).await)
    }

    /// Like [`Lane::write_all`], and sends one more command behind the calls, in the same round trip; its answer is not
    /// wanted. It may be run although a call is refused, and twice.
    pub async fn write_all_then<T: FromRedisValue>(&mut self, calls: &[Call<'_>], then: Cmd) -> Written<Vec<T>> {
        let mut pipeline = pipeline(calls);
        pipeline.add_command(then).ignore();
        Written::of_many(self.run_all(calls, &pipeline).await)
    }

    /// Like [`Lane::write_all`], for calls of one script that must not be run twice: they are sent again only if the server
    /// has run none of them. Doubtful, too, if the script became known while they arrived, so that some were run.
    pub async fn write_all_once<T: FromRedisValue>(&mut self, calls: &[Call<'_>]) -> Written<Vec<T>> {
        Written::of_many(self.run_all_once(calls).await)
    }

    async fn run_all_once<T: FromRedisValue>(&mut self, calls: &[Call<'_>]) -> Result<Vec<T>, Error> {
        let Some(first) = calls.first() else {
            return Ok(Vec::new());
        };
        let pipeline = pipeline(calls);
        let begun = Instant::now();
        let mut answer = pipeline.query_async(&mut self.connection).await;
        if let Err(error) = &answer {
            match unknown(error) {
                0 => {}
                count if count == calls.len() => {
                    self.load(first).await?;
                    answer = pipeline.query_async(&mut self.connection).await;
                }
                _ => return Err(self.live.numbers.failed(Error::Unanswered(error.clone()))),
            }
        }
        self.live.numbers.scripts.record(begun.elapsed());
        self.live.read(self.term, answer)
    }

    /// Lets the server know the script of a call.
    async fn load(&mut self, call: &Call<'_>) -> Result<(), Error> {
        let loaded = call.script().load_async(&mut self.connection).await;
        self.live.judge(self.term, loaded).map(drop)
    }
}

/// A write that harms nothing: what every key and channel begins with, `proof`.
pub(crate) fn proof(channels: &str) -> Cmd {
    let mut set = redis::cmd("SET");
    set.arg(format!("{channels}proof")).arg("").arg("PX").arg(PROOF_LIFE);
    set
}

fn pipeline(calls: &[Call<'_>]) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(calls.len());
    for call in calls {
        pipeline.add_command(call.command());
    }
    pipeline
}

/// Whether the server does not know the script of a call.
fn is_unknown(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// How many calls the server refused because it does not know their script.
fn unknown(error: &RedisError) -> usize {
    let errors = error.clone().into_server_errors();
    errors.map_or(0, |errors| errors.iter().filter(|(_, error)| error.code() == "NOSCRIPT").count())
}
