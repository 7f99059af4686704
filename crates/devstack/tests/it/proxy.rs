//! The fault-injecting proxy in front of an echo server.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tidings_devstack::Proxy;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Longest wait for an event that should be immediate.
const SOON: Duration = Duration::from_secs(10);
/// Time in which no data must arrive.
const SILENCE: Duration = Duration::from_millis(100);

/// Starts an echo server.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

/// Sends `text` and returns the echo.
async fn roundtrip(stream: &mut TcpStream, text: &str) -> std::io::Result<String> {
    stream.write_all(text.as_bytes()).await?;
    let mut echo = vec![0; text.len()];
    timeout(SOON, stream.read_exact(&mut echo)).await.unwrap()?;
    Ok(String::from_utf8(echo).unwrap())
}

/// Starts a proxy, and opens a connection through it that works.
async fn connected() -> (Proxy, TcpStream) {
    let proxy = Proxy::to(echo().await).await.unwrap();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(roundtrip(&mut stream, "hello").await.unwrap(), "hello");
    (proxy, stream)
}

/// Reads until the connection ends: `Ok(0)` after FIN, an error after RST.
async fn end(stream: &mut TcpStream) -> std::io::Result<usize> {
    timeout(SOON, stream.read(&mut [0; 64])).await.unwrap()
}

#[tokio::test]
async fn bytes_are_forwarded_both_ways() {
    let (proxy, mut stream) = connected().await;
    let large = "x".repeat(1 << 20);

    let (mut read, mut write) = stream.split();
    let mut echo = vec![0; large.len()];
    let (written, got) = tokio::join!(write.write_all(large.as_bytes()), read.read_exact(&mut echo));

    written.unwrap();
    got.unwrap();
    assert_eq!(echo, large.as_bytes());
    assert_eq!(proxy.open(), 1);
}

#[tokio::test]
async fn a_delay_applies_to_both_directions() {
    let (proxy, mut stream) = connected().await;
    let begin = Instant::now();

    proxy.delay(Duration::from_millis(50));

    assert_eq!(roundtrip(&mut stream, "slow").await.unwrap(), "slow");
    assert!(begin.elapsed() >= Duration::from_millis(100));
}

/// A connection that sent nothing meanwhile survives.
#[tokio::test]
async fn healing_a_blackhole_resets_affected_connections() {
    let (proxy, mut stream) = connected().await;
    let mut silent = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(roundtrip(&mut silent, "hello").await.unwrap(), "hello");

    proxy.blackhole();
    stream.write_all(b"lost").await.unwrap();
    timeout(SILENCE, stream.read(&mut [0; 4])).await.unwrap_err();
    let mut newcomer = TcpStream::connect(proxy.address()).await.unwrap();
    newcomer.write_all(b"lost, too").await.unwrap();
    timeout(SILENCE, newcomer.read(&mut [0; 4])).await.unwrap_err();
    proxy.heal();

    assert_eq!(end(&mut stream).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(end(&mut newcomer).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(roundtrip(&mut silent, "still here").await.unwrap(), "still here");
}

#[tokio::test]
async fn a_cut_closes_open_connections_only() {
    let (proxy, mut stream) = connected().await;

    proxy.cut();

    assert_eq!(end(&mut stream).await.unwrap(), 0);
    let mut next = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(roundtrip(&mut next, "again").await.unwrap(), "again");
}

#[tokio::test]
async fn a_reset_sends_rst() {
    let (proxy, mut stream) = connected().await;

    proxy.reset();

    assert_eq!(end(&mut stream).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn refused_clients_can_connect_after_healing() {
    let (proxy, mut stream) = connected().await;

    proxy.refuse();
    assert_eq!(end(&mut stream).await.unwrap(), 0);
    let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(end(&mut refused).await.unwrap(), 0);
    proxy.heal();

    let mut reconnected = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(roundtrip(&mut reconnected, "again").await.unwrap(), "again");
}

/// The redirect outlasts `heal`; open connections stay with their server.
#[tokio::test]
async fn a_redirect_applies_to_new_connections() {
    let (proxy, mut stream) = connected().await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();

    proxy.redirect(other.local_addr().unwrap());
    proxy.heal();

    let _redirected = TcpStream::connect(proxy.address()).await.unwrap();
    timeout(SOON, other.accept()).await.unwrap().unwrap();
    assert_eq!(roundtrip(&mut stream, "as before").await.unwrap(), "as before");
}

/// The request takes effect, and the pattern may be split between two chunks.
#[tokio::test]
async fn a_response_is_lost_after_the_server_sent_it() {
    let (proxy, mut stream) = connected().await;

    proxy.lose_responses("COMMIT");
    assert_eq!(roundtrip(&mut stream, "BEGIN").await.unwrap(), "BEGIN");
    stream.write_all(b"COM").await.unwrap();
    assert_eq!(timeout(SOON, stream.read(&mut [0; 3])).await.unwrap().unwrap(), 3);
    stream.write_all(b"MIT").await.unwrap();

    assert_eq!(end(&mut stream).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxy.lost(), 1, "the server must have responded");
}

#[tokio::test]
async fn a_dropped_proxy_closes_its_connections() {
    let (proxy, mut stream) = connected().await;

    drop(proxy);

    assert_eq!(end(&mut stream).await.unwrap(), 0);
}
