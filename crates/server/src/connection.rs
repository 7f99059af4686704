//! Serves connections, and drains all of them at shutdown.

use std::io::{self, ErrorKind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use metrics::{Gauge, gauge};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::Args;
use crate::drain_signal::ConnectionDrain;
use crate::routes::Routes;
use crate::send_timeout;
use crate::stack::Stack;
use crate::tls::Tls;

/// The first bytes of every HTTP/2 connection (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Maximum size of a request's header list: enough for tokens and trace context, a bound on memory.
const HEADER_LIST_BYTES: u32 = 16 << 10;
/// Flow-control window of a stream: allows 20 MiB/s at a round trip of 50 ms.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Flow-control window of a connection: one stream that is not read does not stop the others.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
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
    open: Gauge,
    tasks: TaskTracker,
    age: Duration,
    grace: Duration,
    drain_limit: Duration,
    drain: CancellationToken,
    cut: CancellationToken,
}

impl Connections {
    pub(crate) fn new(args: &Args, stack: Stack<Routes>, tls: Option<Tls>) -> Self {
        let tasks = TaskTracker::new();
        let max = args.max_connections as usize;
        Self {
            shared: Arc::new(ConnectionContext {
                http: http2(args, CallExecutor { tasks: tasks.clone(), send_timeout: args.send_timeout.into() }),
                stack,
                tls,
                preface_timeout: args.preface_timeout.into(),
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
                tracing::debug!(error = &*error, "connection ended");
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
    async fn serve(&self, stream: TcpStream) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        // No call has begun yet, so a drain may drop the connection.
        let Some(stream) = self.drain.run_until_cancelled(self.handshake(stream)).await else {
            return Ok(());
        };
        let connection_drain = Arc::new(ConnectionDrain::default());
        let service = TowerToHyperService::new(self.stack.of_connection(Arc::clone(&connection_drain)));
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(stream?), service));
        let aged = tokio::select! {
            ended = connection.as_mut() => return ended,
            () = self.drain.cancelled() => false,
            () = self.reach_age() => true,
        };
        // A server drain later on needs no action: the streams of an aged connection are already
        // ending.
        connection_drain.start(if aged { self.grace.min(self.drain_limit) } else { self.drain_limit });
        connection.as_mut().graceful_shutdown();
        if !aged {
            return connection.await; // cut together with the others
        }
        timeout(self.grace, connection)
            .await
            .unwrap_or_else(|_| Err("cut: calls outlived the connection age and its grace".into()))
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
        preface(stream, self.preface_timeout).await
    }
}

/// Reads the HTTP/2 preface within `limit`, and returns the stream as if it had not been read.
///
/// hyper has no timeout before the preface: a silent socket would hold its slot indefinitely.
async fn preface<S>(stream: S, limit: Duration) -> io::Result<impl AsyncRead + AsyncWrite + Unpin>
where
    S: AsyncRead + AsyncWrite,
{
    let (mut read, write) = tokio::io::split(stream);
    let mut first = [0; PREFACE.len()];
    timeout(limit, read.read_exact(&mut first)).await??;
    if first != *PREFACE {
        return Err(io::Error::new(ErrorKind::InvalidData, "no HTTP/2 preface: not an HTTP/2 client"));
    }
    Ok(tokio::io::join(PREFACE.chain(read), write))
}

fn http2(args: &Args, executor: CallExecutor) -> auto::Builder<CallExecutor> {
    let keepalive = Duration::from(args.keepalive_interval);
    let mut builder = auto::Builder::new(executor).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(keepalive).filter(|interval| !interval.is_zero()))
        .keep_alive_timeout(args.keepalive_timeout.into())
        .max_concurrent_streams(args.max_streams)
        .max_header_list_size(HEADER_LIST_BYTES)
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
