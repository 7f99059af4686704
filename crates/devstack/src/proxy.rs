//! A TCP proxy with fault injection: delays, blackholes, cuts, resets and lost responses.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::port;

/// Largest chunk in bytes that is forwarded at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Pause after a failed accept, e.g. with too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(5);

/// A TCP proxy in front of a server. It forwards unchanged until a fault is injected.
///
/// Dropping it closes all connections. It belongs to the runtime in which it was created.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<ProxyState>,
    counters: Arc<ProxyCounters>,
    accepting: JoinHandle<()>,
}

/// Settings that all connections watch.
#[derive(Clone, Debug)]
struct ProxyState {
    /// Server of new connections.
    target: SocketAddr,
    mode: ForwardMode,
    delay: Duration,
    /// Bytes of requests whose response is lost.
    pattern: Option<Arc<[u8]>>,
    /// Connections up to this number are closed.
    closed_up_to: u64,
    /// Closes them by RST instead of FIN.
    by_reset: bool,
}

/// Treatment of data and of new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ForwardMode {
    Forward,
    Blackhole,
    Refuse,
}

/// Counters that connections update.
#[derive(Debug, Default)]
struct ProxyCounters {
    accepted: AtomicU64,
    open: AtomicUsize,
    lost: AtomicU64,
}

impl ProxyState {
    /// Forwards unchanged to `target`.
    fn to(target: SocketAddr) -> Self {
        Self {
            target,
            mode: ForwardMode::Forward,
            delay: Duration::ZERO,
            pattern: None,
            closed_up_to: 0,
            by_reset: false,
        }
    }
}

impl Proxy {
    /// Starts to listen on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// The port cannot be bound.
    pub async fn to(target: SocketAddr) -> io::Result<Self> {
        // No ephemeral port: a connection to a stopped server might get the same one.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port::free())).await?;
        let address = listener.local_addr()?;
        let state = watch::Sender::new(ProxyState::to(target));
        let counters = Arc::new(ProxyCounters::default());
        let accepting = tokio::spawn(accept(listener, state.subscribe(), Arc::clone(&counters)));
        Ok(Self { address, state, counters, accepting })
    }

    /// Returns the address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the port on which it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> usize {
        self.counters.open.load(Ordering::SeqCst)
    }

    /// Returns the number of responses lost by [`Proxy::lose_responses`].
    pub fn lost(&self) -> u64 {
        self.counters.lost.load(Ordering::SeqCst)
    }

    /// Delays each chunk in both directions. A chunk is the result of one read, at most 64 KiB.
    pub fn delay(&self, delay: Duration) {
        self.state.send_modify(|state| state.delay = delay);
    }

    /// Discards all data in both directions. Connections stay open, and new ones are accepted.
    pub fn blackhole(&self) {
        self.state.send_modify(|state| state.mode = ForwardMode::Blackhole);
    }

    /// Closes all connections (FIN), and new ones right after the accept.
    pub fn refuse(&self) {
        self.state.send_modify(|state| state.mode = ForwardMode::Refuse);
        self.close_open(false);
    }

    /// Closes the open connections (FIN).
    pub fn cut(&self) {
        self.close_open(false);
    }

    /// Resets the open connections (RST).
    pub fn reset(&self) {
        self.close_open(true);
    }

    /// Forwards new connections to another server; open connections stay.
    pub fn redirect(&self, target: SocketAddr) {
        self.state.send_modify(|state| state.target = target);
    }

    /// Loses the response to every request that contains `pattern`.
    ///
    /// The request is forwarded. When the server responds, the connection is reset instead, so that
    /// the client cannot know if the request took effect. An empty pattern turns this off.
    ///
    /// The next chunk from the server counts as the response. Use it only for protocols with one
    /// request in flight per connection.
    pub fn lose_responses(&self, pattern: impl Into<Vec<u8>>) {
        let pattern: Vec<u8> = pattern.into();
        self.state.send_modify(|state| {
            state.pattern = Some(pattern.into()).filter(|pattern: &Arc<[u8]>| !pattern.is_empty());
        });
    }

    /// Ends all faults. Connections that lost data to a blackhole are reset.
    pub fn heal(&self) {
        self.state.send_modify(|state| {
            *state = ProxyState {
                closed_up_to: state.closed_up_to,
                by_reset: state.by_reset,
                ..ProxyState::to(state.target)
            };
        });
    }

    fn close_open(&self, by_reset: bool) {
        let closed_up_to = self.counters.accepted.load(Ordering::SeqCst);
        self.state.send_modify(|state| (state.closed_up_to, state.by_reset) = (closed_up_to, by_reset));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort(); // drops the set of connections too
    }
}

async fn accept(listener: TcpListener, state: watch::Receiver<ProxyState>, counters: Arc<ProxyCounters>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((client, _)) = listener.accept().await else {
            sleep(ACCEPT_RETRY).await;
            continue;
        };
        let connection = ProxiedConnection {
            number: counters.accepted.fetch_add(1, Ordering::SeqCst) + 1,
            state: state.clone(),
            counters: Arc::clone(&counters),
            discarded: AtomicBool::new(false),
            matched: AtomicBool::new(false),
        };
        connections.spawn(async move {
            connection.counters.open.fetch_add(1, Ordering::SeqCst);
            let _open = OpenGuard(Arc::clone(&connection.counters));
            // On an error the connection closes, which the client notices.
            let _ = connection.serve(client).await;
        });
    }
}

/// Counts a connection as open until it is dropped.
struct OpenGuard(Arc<ProxyCounters>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One connection of a client, with its connection to the upstream server.
struct ProxiedConnection {
    number: u64,
    state: watch::Receiver<ProxyState>,
    counters: Arc<ProxyCounters>,
    /// True if any of its data were discarded.
    discarded: AtomicBool,
    /// True if a forwarded request matched the pattern; its response will be lost.
    matched: AtomicBool,
}

/// Kind of close of a connection.
enum CloseKind {
    Fin,
    Rst,
}

impl ProxiedConnection {
    async fn serve(self, mut client: TcpStream) -> io::Result<()> {
        let ProxyState { target, mode, .. } = *self.state.borrow();
        if mode == ForwardMode::Refuse {
            return Ok(());
        }
        client.set_nodelay(true)?;
        let mut upstream = TcpStream::connect(target).await?;
        upstream.set_nodelay(true)?;
        let close = {
            let ((client_read, client_write), (upstream_read, upstream_write)) = (client.split(), upstream.split());
            let both = async {
                let (requests, responses) = (
                    self.forward_requests(client_read, upstream_write),
                    self.forward_responses(upstream_read, client_write),
                );
                tokio::try_join!(requests, responses).err().unwrap_or(CloseKind::Fin)
            };
            tokio::select! {
                close = both => close,
                close = self.closed() => close,
            }
        };
        if matches!(close, CloseKind::Rst) {
            client.set_zero_linger()?;
            upstream.set_zero_linger()?;
        }
        Ok(())
    }

    /// Waits until the settings require a close.
    async fn closed(&self) -> CloseKind {
        let mut state = self.state.clone();
        let is_closed = |state: &ProxyState| {
            state.closed_up_to >= self.number
                || (self.discarded.load(Ordering::SeqCst) && state.mode == ForwardMode::Forward)
        };
        match state.wait_for(is_closed).await {
            Ok(state) if state.closed_up_to >= self.number && !state.by_reset => CloseKind::Fin,
            Ok(_) => CloseKind::Rst,
            Err(_) => CloseKind::Fin, // the proxy was dropped
        }
    }

    /// Forwards data from the client to the server.
    async fn forward_requests(&self, mut client: ReadHalf<'_>, mut upstream: WriteHalf<'_>) -> Result<(), CloseKind> {
        let mut chunk = vec![0; CHUNK_BYTES];
        // A match may start in one chunk and end in the next.
        let mut sent: Vec<u8> = Vec::new();
        while let Ok(count @ 1..) = client.read(&mut chunk).await {
            let state = self.state_after_delay().await;
            if state.mode == ForwardMode::Blackhole {
                self.discarded.store(true, Ordering::SeqCst);
                continue;
            }
            upstream.write_all(&chunk[..count]).await.map_err(|_| CloseKind::Fin)?;
            if let Some(pattern) = &state.pattern {
                sent.extend_from_slice(&chunk[..count]);
                if sent.windows(pattern.len()).any(|window| window == &**pattern) {
                    self.matched.store(true, Ordering::SeqCst);
                }
                sent.drain(..sent.len().saturating_sub(pattern.len() - 1));
            }
        }
        upstream.shutdown().await.map_err(|_| CloseKind::Fin)
    }

    /// Forwards data from the server to the client.
    async fn forward_responses(&self, mut upstream: ReadHalf<'_>, mut client: WriteHalf<'_>) -> Result<(), CloseKind> {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = upstream.read(&mut chunk).await {
            let state = self.state_after_delay().await;
            if self.matched.load(Ordering::SeqCst) && state.pattern.is_some() {
                self.counters.lost.fetch_add(1, Ordering::SeqCst);
                return Err(CloseKind::Rst);
            }
            if state.mode == ForwardMode::Blackhole {
                self.discarded.store(true, Ordering::SeqCst);
                continue;
            }
            client.write_all(&chunk[..count]).await.map_err(|_| CloseKind::Fin)?;
        }
        client.shutdown().await.map_err(|_| CloseKind::Fin)
    }

    /// Waits for the delay, if any. Returns the settings after it.
    async fn state_after_delay(&self) -> ProxyState {
        let state = self.state.borrow().clone();
        if state.delay.is_zero() {
            return state;
        }
        sleep(state.delay).await;
        self.state.borrow().clone()
    }
}
