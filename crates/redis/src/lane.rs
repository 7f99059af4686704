//! One multiplexed connection, shared by all callers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use deadpool_redis::Connection;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ScriptInvocation, ServerErrorKind};
use tokio::sync::watch;

use crate::Error;

/// After so many unanswered calls in a row a connection is given up: the driver itself never does.
const UNANSWERED_MAX: u32 = 20;

/// A connected lane.
pub(crate) struct Live {
    connection: MultiplexedConnection,
    /// What the pool lent us; dropped with the lane.
    _pooled: Discarded,
    keys: Arc<str>,
    unanswered: AtomicU32,
    broken: watch::Sender<bool>,
}

/// A connection of the pool that does not go back to it: it is broken when its lane ends.
struct Discarded(Option<Connection>);

impl Drop for Discarded {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(Connection::take(connection));
        }
    }
}

impl Live {
    pub(crate) fn new(pooled: Connection, keys: Arc<str>) -> Self {
        Self {
            connection: MultiplexedConnection::clone(&*pooled),
            _pooled: Discarded(Some(pooled)),
            keys,
            unanswered: AtomicU32::new(0),
            broken: watch::Sender::new(false),
        }
    }

    /// The reign of the server, the last part of every key's prefix.
    pub(crate) fn reign(&self) -> &str {
        self.keys.trim_end_matches(':').rsplit(':').next().unwrap_or_default()
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
                let read_only = error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly);
                let closed = error.is_unrecoverable_error() || error.is_connection_dropped();
                if silent || read_only || (closed && !error.is_timeout()) {
                    self.broken.send_replace(true);
                }
                Err(Error::from_redis(error))
            }
        }
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// A lane in the hands of one call: all its keys are of one reign.
#[derive(Debug)]
pub struct Lane {
    live: Arc<Live>,
    connection: MultiplexedConnection,
}

impl Lane {
    pub(crate) fn new(live: &Arc<Live>) -> Self {
        Self { live: Arc::clone(live), connection: live.connection.clone() }
    }

    /// A key of the service in the reign of this lane: `<prefix>:<service>:<reign>:<name>`.
    pub fn key(&self, name: fmt::Arguments<'_>) -> String {
        format!("{}{name}", self.live.keys)
    }

    /// Sends one command.
    ///
    /// # Errors
    /// [`Error`]; after `Unanswered` it may have been done.
    pub async fn send<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, Error> {
        let answer = command.query_async(&mut self.connection).await;
        self.live.judge(answer)
    }

    /// Runs one script.
    ///
    /// # Errors
    /// Like [`Lane::send`].
    pub async fn run<T: FromRedisValue>(&mut self, call: &ScriptInvocation<'_>) -> Result<T, Error> {
        let answer = call.invoke_async(&mut self.connection).await;
        self.live.judge(answer)
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
        let mut pipeline = Pipeline::with_capacity(calls.len());
        for call in calls {
            pipeline.invoke_script(call);
        }
        let mut answer = pipeline.query_async(&mut self.connection).await;
        if let Err(error) = &answer
            && error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
        {
            for call in calls {
                self.live.judge(call.load_async(&mut self.connection).await)?;
            }
            answer = pipeline.query_async(&mut self.connection).await;
        }
        self.live.judge(answer)
    }
}
