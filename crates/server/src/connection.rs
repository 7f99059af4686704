//! Open connections: how one is served, and how all of them come to an end.

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

use crate::Args;
use crate::ending::Closing;
use crate::routes::Routes;
use crate::sending;
use crate::stack::Stack;
use crate::tls::Tls;

/// The first bytes of every HTTP/2 connection (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Largest header list of a request: room for tokens and trace context, too little to fill memory with.
const HEADER_LIST_BYTES: u32 = 16 << 10;
/// What a client may send ahead on one stream: 20 MiB/s at a round trip of 50 ms.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// What a client may send ahead on one connection: one stream that is not read does not stop the others.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Time for tasks to end once their connection is dropped; only a handler that blocks its thread needs longer.
const CUT: Duration = Duration::from_millis(500);

/// All connections of a server. Dropping it cuts them.
pub(crate) struct Connections {
    shared: Arc<Shared>,
    slots: Arc<Semaphore>,
    max: usize,
}

/// What each connection needs to know.
struct Shared {
    http: auto::Builder<Tracked>,
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
            shared: Arc::new(Shared {
                http: http2(args, Tracked { tasks: tasks.clone(), send_timeout: args.send_timeout.into() }),
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

    /// One permit for each connection that may still be opened.
    pub(crate) fn slots(&self) -> Arc<Semaphore> {
        Arc::clone(&self.slots)
    }

    /// Serves one connection in a task of its own, which frees the slot when it ends.
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

    /// Says GOAWAY on every connection, waits until they have ended, cuts those that have not after `limit`.
    ///
    /// Returns how many were cut, at most half a second after `limit`. A graceful shutdown alone may never end: not on
    /// a peer that answers no PING, nor on one that holds an endless stream (hyperium/hyper#4170).
    pub(crate) async fn drain(self, limit: Duration) -> usize {
        self.shared.drain.cancel();
        self.shared.tasks.close();
        if timeout(limit, self.shared.tasks.wait()).await.is_ok() {
            return 0;
        }
        let open = self.max - self.slots.available_permits();
        self.shared.cut.cancel();
        if timeout(CUT, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.shared.tasks.len(), "calls block their thread, leaving them behind");
        }
        open
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.shared.cut.cancel();
    }
}

impl Shared {
    async fn serve(&self, stream: TcpStream) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        // Nothing was asked yet, so a drain may end it without a word.
        let Some(stream) = self.drain.run_until_cancelled(self.open(stream)).await else {
            return Ok(());
        };
        let closing = Arc::new(Closing::default());
        let service = TowerToHyperService::new(self.stack.of_connection(Arc::clone(&closing)));
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(stream?), service));
        let old = tokio::select! {
            ended = connection.as_mut() => return ended,
            () = self.drain.cancelled() => false,
            () = self.grows_old() => true,
        };
        // A drain that comes on top finds the streams of an old connection on their way already.
        closing.begin(if old { self.grace.min(self.drain_limit) } else { self.drain_limit });
        connection.as_mut().graceful_shutdown();
        if !old {
            return connection.await; // cut with all others
        }
        timeout(self.grace, connection).await.unwrap_or_else(|_| Err("cut after its age and the grace".into()))
    }

    /// Waits for the age at which a connection ends, +-10 % so that connections made together do not end together.
    async fn grows_old(&self) {
        if self.age.is_zero() {
            std::future::pending::<()>().await;
        }
        sleep(self.age.mul_f64(rand::random_range(0.9..1.1))).await;
    }

    /// Brings a connection to where HTTP/2 begins.
    async fn open(&self, stream: TcpStream) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + use<>> {
        let stream = match &self.tls {
            None => Either::Left(stream),
            Some(tls) => Either::Right(tls.accept(stream).await?),
        };
        preface(stream, self.preface_timeout).await
    }
}

/// Reads the HTTP/2 preface within `limit` and returns the stream as if it had not been read.
///
/// hyper has no timer before the preface: a silent socket would hold its slot for ever.
async fn preface<S>(stream: S, limit: Duration) -> io::Result<impl AsyncRead + AsyncWrite + Unpin>
where
    S: AsyncRead + AsyncWrite,
{
    let (mut read, write) = tokio::io::split(stream);
    let mut first = [0; PREFACE.len()];
    timeout(limit, read.read_exact(&mut first)).await??;
    if first != *PREFACE {
        return Err(io::Error::new(ErrorKind::InvalidData, "not an HTTP/2 client"));
    }
    Ok(tokio::io::join(PREFACE.chain(read), write))
}

fn http2(args: &Args, executor: Tracked) -> auto::Builder<Tracked> {
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

/// Runs each call as a tracked task, so that a drain waits for it, until its answer is taken.
#[derive(Clone)]
struct Tracked {
    tasks: TaskTracker,
    send_timeout: Duration,
}

impl<F> Executor<F> for Tracked
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, call: F) {
        self.tasks.spawn(sending::within(self.send_timeout, call));
    }
}
