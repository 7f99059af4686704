//! A way to a server on which things go wrong on purpose: delays, silence, cuts, resets, lost answers.

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

/// The most that is carried in one piece.
const PIECE: usize = 64 << 10;
/// Pause after a connection could not be accepted, as when there are too many files open.
const PAUSE: Duration = Duration::from_millis(5);

/// A TCP way to a server. It carries everything as it comes until it is told otherwise; dropping it ends all connections.
///
/// It belongs to the runtime in which it was made.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    seen: Arc<Seen>,
    accepting: JoinHandle<()>,
}

/// What connections obey.
#[derive(Clone, Debug)]
struct Orders {
    /// Where new connections lead.
    target: SocketAddr,
    door: Door,
    delay: Duration,
    /// The answer to what holds these bytes is lost.
    needle: Option<Arc<[u8]>>,
    /// Connections up to this number are ended, and how.
    ended: u64,
    by_reset: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Open,
    Blackhole,
    Refused,
}

/// What connections tell.
#[derive(Debug, Default)]
struct Seen {
    accepted: AtomicU64,
    open: AtomicUsize,
    lost: AtomicU64,
}

impl Orders {
    /// Everything as it comes.
    fn to(target: SocketAddr) -> Self {
        Self { target, door: Door::Open, delay: Duration::ZERO, needle: None, ended: 0, by_reset: false }
    }
}

impl Proxy {
    /// Begins to listen on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// Those of the system.
    pub async fn to(target: SocketAddr) -> io::Result<Self> {
        // Not a port of the system's choice: it may be the one that a connection to a stopped server gets.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port::free())).await?;
        let address = listener.local_addr()?;
        let orders = watch::Sender::new(Orders::to(target));
        let seen = Arc::new(Seen::default());
        let accepting = tokio::spawn(accept(listener, orders.subscribe(), Arc::clone(&seen)));
        Ok(Self { address, orders, seen, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port on which it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections are open now.
    pub fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    /// How many answers were lost as [`Proxy::lose_answers`] wants it.
    pub fn lost(&self) -> u64 {
        self.seen.lost.load(Ordering::SeqCst)
    }

    /// Holds each piece up for so long, both ways. A piece is what one read of the socket gave, at most 64 KiB.
    pub fn delay(&self, delay: Duration) {
        self.orders.send_modify(|orders| orders.delay = delay);
    }

    /// Swallows what is sent, both ways. Connections stay open, and new ones are accepted.
    pub fn blackhole(&self) {
        self.orders.send_modify(|orders| orders.door = Door::Blackhole);
    }

    /// Closes all connections, and new ones as soon as they come.
    pub fn refuse(&self) {
        self.orders.send_modify(|orders| orders.door = Door::Refused);
        self.end(false);
    }

    /// Closes the connections that are open (FIN).
    pub fn cut(&self) {
        self.end(false);
    }

    /// Resets the connections that are open (RST).
    pub fn reset(&self) {
        self.end(true);
    }

    /// Leads to another server from now on: connections that are open stay where they are.
    pub fn redirect(&self, target: SocketAddr) {
        self.orders.send_modify(|orders| orders.target = target);
    }

    /// Loses the answer to whatever holds these bytes: it is carried to the server, and when the server answers, the connection is
    /// reset instead. The caller can not know whether it was done.
    ///
    /// The next piece from the server counts as the answer: only for protocols in which a connection waits for one answer at
    /// a time.
    pub fn lose_answers(&self, needle: impl Into<Vec<u8>>) {
        let needle: Vec<u8> = needle.into();
        self.orders
            .send_modify(|orders| orders.needle = Some(needle.into()).filter(|needle: &Arc<[u8]>| !needle.is_empty()));
    }

    /// Carries everything as it comes again. A connection of which something was swallowed is reset.
    pub fn heal(&self) {
        self.orders.send_modify(|orders| {
            *orders = Orders { ended: orders.ended, by_reset: orders.by_reset, ..Orders::to(orders.target) };
        });
    }

    fn end(&self, by_reset: bool) {
        let ended = self.seen.accepted.load(Ordering::SeqCst);
        self.orders.send_modify(|orders| (orders.ended, orders.by_reset) = (ended, by_reset));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort(); // and with it the set of its connections
    }
}

async fn accept(listener: TcpListener, orders: watch::Receiver<Orders>, seen: Arc<Seen>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((near, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let connection = Connection {
            number: seen.accepted.fetch_add(1, Ordering::SeqCst) + 1,
            orders: orders.clone(),
            seen: Arc::clone(&seen),
            swallowed: AtomicBool::new(false),
            asked: AtomicBool::new(false),
        };
        connections.spawn(async move {
            connection.seen.open.fetch_add(1, Ordering::SeqCst);
            let _open = Open(Arc::clone(&connection.seen));
            // What fails here the caller notices: its connection closes.
            let _ = connection.serve(near).await;
        });
    }
}

/// Counts a connection as open.
struct Open(Arc<Seen>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One connection, near (the caller's side) and far (the server's).
struct Connection {
    number: u64,
    orders: watch::Receiver<Orders>,
    seen: Arc<Seen>,
    /// Whether anything of it was swallowed.
    swallowed: AtomicBool,
    /// Whether something was sent on whose answer is to be lost.
    asked: AtomicBool,
}

/// How a connection ends.
enum End {
    Close,
    Reset,
}

impl Connection {
    async fn serve(self, mut near: TcpStream) -> io::Result<()> {
        let Orders { target, door, .. } = *self.orders.borrow();
        if door == Door::Refused {
            return Ok(());
        }
        near.set_nodelay(true)?;
        let mut far = TcpStream::connect(target).await?;
        far.set_nodelay(true)?;
        let end = {
            let ((near_read, near_write), (far_read, far_write)) = (near.split(), far.split());
            let both = async {
                let (asking, answering) = (self.ask(near_read, far_write), self.answer(far_read, near_write));
                tokio::try_join!(asking, answering).err().unwrap_or(End::Close)
            };
            tokio::select! {
                end = both => end,
                end = self.ended() => end,
            }
        };
        if matches!(end, End::Reset) {
            near.set_zero_linger()?;
            far.set_zero_linger()?;
        }
        Ok(())
    }

    /// Waits until it is told to end.
    async fn ended(&self) -> End {
        let mut orders = self.orders.clone();
        let over = |orders: &Orders| {
            orders.ended >= self.number || (self.swallowed.load(Ordering::SeqCst) && orders.door == Door::Open)
        };
        match orders.wait_for(over).await {
            Ok(orders) if orders.ended >= self.number && !orders.by_reset => End::Close,
            Ok(_) => End::Reset,
            Err(_) => End::Close, // the proxy is gone
        }
    }

    /// Carries what is asked.
    async fn ask(&self, mut near: ReadHalf<'_>, mut far: WriteHalf<'_>) -> Result<(), End> {
        let mut piece = vec![0; PIECE];
        // A needle may begin in one piece and end in the next.
        let mut sent: Vec<u8> = Vec::new();
        while let Ok(count @ 1..) = near.read(&mut piece).await {
            let orders = self.hold().await;
            if orders.door == Door::Blackhole {
                self.swallowed.store(true, Ordering::SeqCst);
                continue;
            }
            far.write_all(&piece[..count]).await.map_err(|_| End::Close)?;
            if let Some(needle) = &orders.needle {
                sent.extend_from_slice(&piece[..count]);
                if sent.windows(needle.len()).any(|window| window == &**needle) {
                    self.asked.store(true, Ordering::SeqCst);
                }
                sent.drain(..sent.len().saturating_sub(needle.len() - 1));
            }
        }
        far.shutdown().await.map_err(|_| End::Close)
    }

    /// Carries what is answered.
    async fn answer(&self, mut far: ReadHalf<'_>, mut near: WriteHalf<'_>) -> Result<(), End> {
        let mut piece = vec![0; PIECE];
        while let Ok(count @ 1..) = far.read(&mut piece).await {
            let orders = self.hold().await;
            if self.asked.load(Ordering::SeqCst) && orders.needle.is_some() {
                self.seen.lost.fetch_add(1, Ordering::SeqCst);
                return Err(End::Reset);
            }
            if orders.door == Door::Blackhole {
                self.swallowed.store(true, Ordering::SeqCst);
                continue;
            }
            near.write_all(&piece[..count]).await.map_err(|_| End::Close)?;
        }
        near.shutdown().await.map_err(|_| End::Close)
    }

    /// Holds a piece up for as long as ordered, and says what to do with it.
    async fn hold(&self) -> Orders {
        let orders = self.orders.borrow().clone();
        if orders.delay.is_zero() {
            return orders;
        }
        sleep(orders.delay).await;
        self.orders.borrow().clone()
    }
}
