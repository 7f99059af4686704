//! A proxy to Redis that can stop delivery to subscribed connections, while all others work.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A proxy to one Redis. Dropping it stops accepting connections.
pub(crate) struct PubSubProxy {
    address: SocketAddr,
    control: Arc<ProxyControl>,
    accepting: JoinHandle<()>,
}

/// State shared by the connections of a proxy.
struct ProxyControl {
    /// Subscribed connections with this number or a lower one get no more replies.
    muted_up_to: watch::Sender<usize>,
    /// Number of connections that have subscribed until now.
    subscribed: AtomicUsize,
}

impl PubSubProxy {
    /// Starts a proxy to the Redis on `port`.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let control = Arc::new(ProxyControl { muted_up_to: watch::Sender::new(0), subscribed: AtomicUsize::new(0) });
        let shared = Arc::clone(&control);
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                let (control, number) = (Arc::clone(&shared), Arc::new(AtomicUsize::new(0)));
                let ((client_read, client_write), (server_read, server_write)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(forward_requests(client_read, server_write, Arc::clone(&control), Arc::clone(&number)));
                tokio::spawn(forward_replies(server_read, client_write, control, number));
            }
        });
        Self { address, control, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Stops replies to all connections subscribed now; they stay open. Later connections work.
    pub(crate) fn mute_subscribers(&self) {
        self.control.muted_up_to.send_replace(self.subscribed_connections());
    }

    /// Returns the number of connections that have subscribed until now.
    pub(crate) fn subscribed_connections(&self) -> usize {
        self.control.subscribed.load(Ordering::SeqCst)
    }
}

impl Drop for PubSubProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Forwards requests. The first SUBSCRIBE of a connection gives it a number.
async fn forward_requests(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    control: Arc<ProxyControl>,
    number: Arc<AtomicUsize>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = client.read(&mut buffer).await {
        let subscribes = buffer[..count].windows(9).any(|window| window.eq_ignore_ascii_case(b"SUBSCRIBE"));
        if subscribes && number.load(Ordering::SeqCst) == 0 {
            number.store(control.subscribed.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        }
        if server.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Forwards replies until the connection is muted.
async fn forward_replies(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    control: Arc<ProxyControl>,
    number: Arc<AtomicUsize>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = server.read(&mut buffer).await {
        let number = number.load(Ordering::SeqCst);
        let muted = number != 0 && number <= *control.muted_up_to.borrow();
        if !muted && client.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
