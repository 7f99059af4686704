//! One multiplexed connection, shared by all callers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use deadpool_redis::Connection;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ScriptInvocation, ServerErrorKind, Value};
use tokio::sync::watch;

use crate::numbers::Numbers;
use crate::{Error, Role};

/// After so many unanswered calls in a row a connection is given up: the driver itself never does.
const UNANSWERED_MAX: u32 = 20;

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
    reign: Box<str>,
    role: Role,
    numbers: Arc<Numbers>,
    unanswered: AtomicU32,
    broken: watch::Sender<bool>,
}

impl Live {
    pub(crate) fn new(
        pooled: Connection,
        channels: Arc<str>,
        reign: Box<str>,
        role: Role,
        numbers: Arc<Numbers>,
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
    pub(crate) fn reign(&self) -> &str {
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

    /// Draws the conclusions of an answer, or of none.
    fn judge<T>(&self, answer: Result<T, RedisError>) -> Result<T, Error> {
        match answer {
            Ok(value) => {
                self.unanswered.store(0, Ordering::Relaxed);
                Ok(value)
            }
            Err(error) => {
                let silent =
                    error.is_timeout() && self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= UNANSWERED_MAX;
                let bears = |code| self.role == Role::State && code == OUT_OF_MEMORY;
                let unwritable = REFUSES_WRITES.iter().any(|code| !bears(*code) && says(&error, code));
                let closed = error.is_unrecoverable_error() || error.is_connection_dropped();
                if silent || unwritable || (closed && !error.is_timeout()) {
                    self.give_up();
                }
                Err(self.numbers.failed(Error::from_redis(error)))
            }
        }
    }

    /// Like [`Live::judge`], and reads the answer. That it is of another shape than the caller expects is no fault of
    /// the connection: the driver would call it one.
    fn read<T: FromRedisValue>(&self, answer: Result<Value, RedisError>) -> Result<T, Error> {
        T::from_redis_value(self.judge(answer)?).map_err(|error| self.numbers.failed(Error::Refused(error.into())))
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
}

impl Lane {
    pub(crate) fn new(live: &Arc<Live>) -> Self {
        Self { live: Arc::clone(live), connection: live.connection() }
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
    pub fn reign(&self) -> &str {
        self.live.reign()
    }

    /// Says that a script met another reign than this lane's, so that nobody uses the lane any more.
    pub fn outlived(&self) -> Error {
        self.live.give_up();
        self.live.numbers.failed(Error::Away)
    }

    /// Sends one command.
    ///
    /// # Errors
    /// [`Error`]; after `Unanswered` it may have been done.
    pub async fn send<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, Error> {
        let begun = Instant::now();
        let answer = command.query_async(&mut self.connection).await;
        self.live.numbers.command.record(begun.elapsed());
        self.live.read(answer)
    }

    /// Runs one script.
    ///
    /// # Errors
    /// Like [`Lane::send`].
    pub async fn run<T: FromRedisValue>(&mut self, call: &ScriptInvocation<'_>) -> Result<T, Error> {
        let begun = Instant::now();
        let answer = call.invoke_async(&mut self.connection).await;
        self.live.numbers.script.record(begun.elapsed());
        self.live.read(answer)
    }

    /// Runs many calls of scripts in one round trip and returns their answers in order. Not atomic; if any fails, all
    /// count as unanswered or refused, though some were done.
    ///
    /// # Errors
    /// Like [`Lane::send`].
    pub async fn run_all<T: FromRedisValue>(&mut self, calls: &[ScriptInvocation<'_>]) -> Result<Vec<T>, Error> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        let pipeline = pipeline(calls);
        let begun = Instant::now();
        let mut answer = pipeline.query_async(&mut self.connection).await;
        // One load is enough for calls of one script, as most lists are.
        for call in calls {
            let Err(error) = &answer else { break };
            if error.kind() != ErrorKind::Server(ServerErrorKind::NoScript) {
                break;
            }
            let loaded = call.load_async(&mut self.connection).await;
            self.live.judge(loaded)?;
            answer = pipeline.query_async(&mut self.connection).await;
        }
        self.live.numbers.scripts.record(begun.elapsed());
        self.live.read(answer)
    }

    /// Like [`Lane::run_all`], for calls of one script that must not be run twice: they are sent again only if the server
    /// has run none of them.
    ///
    /// # Errors
    /// Like [`Lane::send`]; `Unanswered`, too, if the script became known while they arrived, so that some were run.
    pub async fn run_all_once<T: FromRedisValue>(&mut self, calls: &[ScriptInvocation<'_>]) -> Result<Vec<T>, Error> {
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
                    let loaded = first.load_async(&mut self.connection).await;
                    self.live.judge(loaded)?;
                    answer = pipeline.query_async(&mut self.connection).await;
                }
                _ => return Err(self.live.numbers.failed(Error::Unanswered(error.clone()))),
            }
        }
        self.live.numbers.scripts.record(begun.elapsed());
        self.live.read(answer)
    }
}

fn pipeline(calls: &[ScriptInvocation<'_>]) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(calls.len());
    for call in calls {
        pipeline.invoke_script(call);
    }
    pipeline
}

/// How many calls the server refused because it does not know their script.
fn unknown(error: &RedisError) -> usize {
    let errors = error.clone().into_server_errors();
    errors.map_or(0, |errors| errors.iter().filter(|(_, error)| error.code() == "NOSCRIPT").count())
}
