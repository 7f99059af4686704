//! Serves connections, and drains all of them at shutdown.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use metrics::{Counter, Gauge, counter, gauge};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::Args;
use crate::connection_state::ConnectionState;
use crate::drain_signal::DrainCause;
use crate::liveness::{Liveness, Watched};
use crate::preface;
use crate::reset_budget::RESETS_AT_ONCE;
use crate::routes::Routes;
use crate::send_timeout;
use crate::stack::{HEADER_LIST_BYTES, Stack};
use crate::tls::Tls;

/// Maximum size of a header list that HTTP/2 accepts, far above that of a legal call: the stack
/// refuses such a call with a reason. The client knows this limit from the settings. A header list
/// beyond it ends the connection, because it would have to be read to its end.
const HTTP2_HEADER_LIST_BYTES: usize = 16 * HEADER_LIST_BYTES;
/// Flow-control window of a stream: allows 20 MiB/s at a round trip of 50 ms.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Data that HTTP/2 holds for a stream until the connection takes it. A PING and the other streams
/// wait behind at most this much of each stream.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// Timeout of a PING in hyper: practically none, because [`Liveness`] decides.
const NO_PING_TIMEOUT: Duration = Duration::from_hours(24);
/// Flow-control window of a connection: one stream that is not read does not stop the others.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Time for the GOAWAY to a client that counts as dead.
const GOAWAY_TIMEOUT: Duration = Duration::from_millis(100);
/// Time for tasks to end once their connection is dropped; only a handler that blocks its thread
/// needs longer.
const CUT_TIMEOUT: Duration = Duration::from_millis(500);

/// All connections of a server. Dropping it cuts them.
pub(crate) struct Connections {
    shared: Arc<ConnectionContext>,
    slots: Arc<Semaphore>,
    max: usize,
}

/// State that all connections share.
struct ConnectionContext {
    http: auto::Builder<CallExecutor>,
    stack: Stack<Routes>,
    tls: Option<Tls>,
    preface_timeout: Duration,
    max_streams: u32,
    keepalive_interval: Duration,
    keepalive_timeout: Duration,
    open: Gauge,
    tasks: TaskTracker,
    age: Duration,
    grace: Duration,
    drain_limit: Duration,
    drain: CancellationToken,
    cut: CancellationToken,
}

/// Cause for which the server cuts a connection without an orderly end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum CutCause {
    #[error("the client answers no PING and reads nothing")]
    Dead,
    #[error("the client reset too many calls: at most {RESETS_AT_ONCE} at once, and 1000 per second")]
    Resets,
    #[error("calls outlived the connection age and its grace")]
    Age,
}

impl CutCause {
    const ALL: [Self; 3] = [Self::Dead, Self::Resets, Self::Age];

    /// Returns the number of connections cut for this cause.
    fn counter(self) -> Counter {
        counter!("tidings_server_connections_cut_total", "cause" => self.label())
    }

    fn label(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Resets => "resets",
            Self::Age => "age",
        }
    }
}

impl Connections {
    /// Creates the connections of a server, each with at most `max_streams` concurrent calls.
    pub(crate) fn new(args: &Args, max_streams: u32, stack: Stack<Routes>, tls: Option<Tls>) -> Self {
        let tasks = TaskTracker::new();
        let max = args.max_connections as usize;
        for cause in CutCause::ALL {
            cause.counter().increment(0); // exported from the start
        }
        let executor = CallExecutor { tasks: tasks.clone(), send_timeout: args.send_timeout.into() };
        Self {
            shared: Arc::new(ConnectionContext {
                http: http2(args, max_streams, executor),
                stack,
                tls,
                preface_timeout: args.preface_timeout.into(),
                max_streams,
                keepalive_interval: args.keepalive_interval.into(),
                keepalive_timeout: args.keepalive_timeout.into(),
                open: gauge!("tidings_server_connections"),
                tasks,
                age: args.connection_age.into(),
                grace: args.connection_grace.into(),
                drain_limit: args.drain.into(),
                drain: CancellationToken::new(),
                cut: CancellationToken::new(),
            }),
            slots: Arc::new(Semaphore::new(max)),
            max,
        }
    }

    /// Returns the semaphore that bounds the number of connections.
    pub(crate) fn slots(&self) -> Arc<Semaphore> {
        Arc::clone(&self.slots)
    }

    /// Serves one connection in its own task, which frees the slot when it ends.
    pub(crate) fn spawn(&self, stream: TcpStream, slot: OwnedSemaphorePermit) {
        let shared = Arc::clone(&self.shared);
        shared.open.increment(1);
        self.shared.tasks.spawn(async move {
            let served = shared.cut.run_until_cancelled(shared.serve(stream)).await;
            if let Some(Err(error)) = served {
                log_end(&*error);
            }
            shared.open.decrement(1);
            drop(slot);
        });
    }

    /// Sends GOAWAY on every connection, waits until they have ended, and cuts the rest after
    /// `limit`.
    ///
    /// Returns the number of connections that were cut, at most half a second after `limit`. A
    /// graceful shutdown alone may never end: a peer may answer no PING, or hold an endless stream
    /// (hyperium/hyper#4170).
    pub(crate) async fn drain(self, limit: Duration) -> usize {
        self.shared.drain.cancel();
        self.shared.tasks.close();
        if timeout(limit, self.shared.tasks.wait()).await.is_ok() {
            return 0;
        }
        let open = self.max - self.slots.available_permits();
        self.shared.cut.cancel();
        if timeout(CUT_TIMEOUT, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!(
                tasks = self.shared.tasks.len(),
                "tasks still running after the cut, probably blocking their threads"
            );
        }
        open
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.shared.cut.cancel();
    }
}

impl ConnectionContext {
    async fn serve(&self, stream: TcpStream) -> Result<(), ConnectionError> {
        // No call has begun yet, so a drain may drop the connection.
        let Some(stream) = self.drain.run_until_cancelled(self.handshake(stream)).await else {
            return Ok(());
        };
        let (state, liveness) = (ConnectionState::new(self.max_streams), Liveness::start());
        let stream = Watched::new(stream?, liveness.clone());
        self.serve_calls(stream, &state, &liveness).await
    }

    /// Serves the calls of a connection until it ends: by its client, by its age, by a drain, or by
    /// a cut.
    async fn serve_calls<S>(
        &self,
        stream: S,
        state: &Arc<ConnectionState>,
        liveness: &Liveness,
    ) -> Result<(), ConnectionError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = TowerToHyperService::new(self.stack.of_connection(Arc::clone(state)));
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(stream), service));
        let serving = async {
            let cause = tokio::select! {
                ended = connection.as_mut() => return ended,
                () = self.drain.cancelled() => DrainCause::Shutdown,
                () = self.reach_age() => DrainCause::ConnectionAge,
            };
            state.drain.start(self.drain_time(cause), cause);
            connection.as_mut().graceful_shutdown();
            match cause {
                DrainCause::Shutdown => connection.as_mut().await, // cut together with the others
                DrainCause::ConnectionAge => {
                    let ended = timeout(self.grace, connection.as_mut()).await;
                    ended.unwrap_or_else(|_| Err(CutCause::Age.into()))
                }
            }
        };
        tokio::select! {
            ended = serving => return ended,
            () = state.resets.exhausted() => return Err(CutCause::Resets.into()),
            () = self.dead(liveness) => {}
        }
        // A client that is alive nonetheless gets a GOAWAY, if its socket takes it at once.
        connection.as_mut().graceful_shutdown();
        let _ = timeout(GOAWAY_TIMEOUT, connection).await;
        Err(CutCause::Dead.into())
    }

    /// Returns the time in which the calls of a connection have to end. A server drain later on
    /// does not change it: the calls of an aged connection are already ending.
    fn drain_time(&self, cause: DrainCause) -> Duration {
        match cause {
            DrainCause::Shutdown => self.drain_limit,
            DrainCause::ConnectionAge => self.grace.min(self.drain_limit),
        }
    }

    /// Waits until the client counts as dead; never if there are no PINGs.
    async fn dead(&self, liveness: &Liveness) {
        if self.keepalive_interval.is_zero() {
            std::future::pending::<()>().await;
        }
        liveness.dead(self.keepalive_interval, self.keepalive_timeout).await;
    }

    /// Waits for the age at which the connection ends, with +/-10 % jitter so that connections
    /// opened together do not end together.
    async fn reach_age(&self) {
        if self.age.is_zero() {
            std::future::pending::<()>().await;
        }
        sleep(self.age.mul_f64(rand::random_range(0.9..1.1))).await;
    }

    /// Performs the TLS handshake, if any, and reads the HTTP/2 preface.
    async fn handshake(&self, stream: TcpStream) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + use<>> {
        let stream = match &self.tls {
            None => Either::Left(stream),
            Some(tls) => Either::Right(tls.accept(stream).await?),
        };
        preface::read(stream, self.preface_timeout).await
    }
}

/// Error that ended a connection.
type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

/// Logs the end of a connection. A cut is counted, and logged for operators: its client sees only a
/// closed connection.
fn log_end(error: &(dyn std::error::Error + Send + Sync + 'static)) {
    let Some(cause) = error.downcast_ref::<CutCause>() else {
        tracing::debug!(error, "connection ended");
        return;
    };
    cause.counter().increment(1);
    tracing::info!(%cause, "connection cut");
}

fn http2(args: &Args, max_streams: u32, executor: CallExecutor) -> auto::Builder<CallExecutor> {
    let keepalive = Duration::from(args.keepalive_interval);
    let mut builder = auto::Builder::new(executor).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(keepalive).filter(|interval| !interval.is_zero()))
        .keep_alive_timeout(NO_PING_TIMEOUT)
        .max_concurrent_streams(max_streams)
        .max_pending_accept_reset_streams(RESETS_AT_ONCE as usize)
        .max_local_error_reset_streams(RESETS_AT_ONCE as usize)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(u32::try_from(HTTP2_HEADER_LIST_BYTES).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder
}

/// Runs each call as a tracked task, which a drain waits for, until its response is sent.
#[derive(Clone)]
struct CallExecutor {
    tasks: TaskTracker,
    send_timeout: Duration,
}

impl<F> Executor<F> for CallExecutor
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, call: F) {
        self.tasks.spawn(send_timeout::with_send_timeout(self.send_timeout, call));
    }
}
