//! A way to Redis on which what listens can be made deaf, while everything else goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A way to Redis. Dropping it ends all connections.
pub(crate) struct Proxy {
    address: SocketAddr,
    control: Arc<Control>,
    accepting: JoinHandle<()>,
}

/// What the connections obey and tell.
struct Control {
    /// Connections that listen, up to the one of this number, hear nothing any more.
    deaf_up_to: watch::Sender<usize>,
    /// How many connections have begun to listen.
    listening: AtomicUsize,
}

impl Proxy {
    /// A way to the Redis on this port.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let control = Arc::new(Control { deaf_up_to: watch::Sender::new(0), listening: AtomicUsize::new(0) });
        let obeyed = Arc::clone(&control);
        let accepting = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                let (control, number) = (Arc::clone(&obeyed), Arc::new(AtomicUsize::new(0)));
                let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                tokio::spawn(ask(near_read, far_write, Arc::clone(&control), Arc::clone(&number)));
                tokio::spawn(answer(far_read, near_write, control, number));
            }
        });
        Self { address, control, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Makes the connections that listen now hear nothing any more, though they stay open. Those that come later hear.
    pub(crate) fn deafen(&self) {
        self.control.deaf_up_to.send_replace(self.listening());
    }

    /// How many connections have begun to listen until now.
    pub(crate) fn listening(&self) -> usize {
        self.control.listening.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Hands on what is asked; a connection that asks to subscribe is one that listens, and has a number from then on.
async fn ask(mut near: OwnedReadHalf, mut far: OwnedWriteHalf, control: Arc<Control>, number: Arc<AtomicUsize>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = near.read(&mut buffer).await {
        let subscribes = buffer[..count].windows(9).any(|window| window.eq_ignore_ascii_case(b"SUBSCRIBE"));
        if subscribes && number.load(Ordering::SeqCst) == 0 {
            number.store(control.listening.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        }
        if far.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Hands on what is answered, for as long as the connection is not deaf.
async fn answer(mut far: OwnedReadHalf, mut near: OwnedWriteHalf, control: Arc<Control>, number: Arc<AtomicUsize>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = far.read(&mut buffer).await {
        let number = number.load(Ordering::SeqCst);
        let deaf = number != 0 && number <= *control.deaf_up_to.borrow();
        if !deaf && near.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
