//! The way on which things go wrong, to a server that echoes.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tidings_devstack::Proxy;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Longest wait for what happens at once.
const SOON: Duration = Duration::from_secs(10);
/// How long nothing must happen.
const SILENCE: Duration = Duration::from_millis(100);

/// A server that sends back what it gets, and counts the bytes.
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

async fn say(stream: &mut TcpStream, words: &str) -> std::io::Result<String> {
    stream.write_all(words.as_bytes()).await?;
    let mut answer = vec![0; words.len()];
    timeout(SOON, stream.read_exact(&mut answer)).await.unwrap()?;
    Ok(String::from_utf8(answer).unwrap())
}

/// The way, and a connection on it that works.
async fn way() -> (Proxy, TcpStream) {
    let proxy = Proxy::to(echo().await).await.unwrap();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(say(&mut stream, "hello").await.unwrap(), "hello");
    (proxy, stream)
}

async fn end(stream: &mut TcpStream) -> std::io::Result<usize> {
    timeout(SOON, stream.read(&mut [0; 64])).await.unwrap()
}

#[tokio::test]
async fn it_carries_what_it_is_given_both_ways() {
    let (proxy, mut stream) = way().await;
    let large = "x".repeat(1 << 20);

    let (mut read, mut write) = stream.split();
    let mut answer = vec![0; large.len()];
    let (written, got) = tokio::join!(write.write_all(large.as_bytes()), read.read_exact(&mut answer));

    written.unwrap();
    got.unwrap();
    assert_eq!(answer, large.as_bytes());
    assert_eq!(proxy.open(), 1);
}

#[tokio::test]
async fn a_delay_holds_each_piece_up_both_ways() {
    let (proxy, mut stream) = way().await;
    let begun = Instant::now();

    proxy.delay(Duration::from_millis(50));

    assert_eq!(say(&mut stream, "slow").await.unwrap(), "slow");
    assert!(begun.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn a_blackhole_swallows_everything_and_healing_resets_whom_it_cost_something() {
    let (proxy, mut stream) = way().await;
    let mut silent = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(say(&mut silent, "hello").await.unwrap(), "hello");

    proxy.blackhole();
    stream.write_all(b"lost").await.unwrap();
    timeout(SILENCE, stream.read(&mut [0; 4])).await.unwrap_err();
    let mut newcomer = TcpStream::connect(proxy.address()).await.unwrap();
    newcomer.write_all(b"lost, too").await.unwrap();
    timeout(SILENCE, newcomer.read(&mut [0; 4])).await.unwrap_err();
    proxy.heal();

    assert_eq!(end(&mut stream).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(end(&mut newcomer).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(say(&mut silent, "still here").await.unwrap(), "still here");
}

#[tokio::test]
async fn a_cut_closes_what_is_open_and_nothing_else() {
    let (proxy, mut stream) = way().await;

    proxy.cut();

    assert_eq!(end(&mut stream).await.unwrap(), 0);
    let mut next = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(say(&mut next, "again").await.unwrap(), "again");
}

#[tokio::test]
async fn a_reset_is_one() {
    let (proxy, mut stream) = way().await;

    proxy.reset();

    assert_eq!(end(&mut stream).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn who_is_refused_is_let_in_after_healing() {
    let (proxy, mut stream) = way().await;

    proxy.refuse();
    assert_eq!(end(&mut stream).await.unwrap(), 0);
    let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(end(&mut refused).await.unwrap(), 0);
    proxy.heal();

    let mut welcome = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(say(&mut welcome, "again").await.unwrap(), "again");
}

#[tokio::test]
async fn a_redirected_way_leads_new_connections_to_the_other_server_also_after_healing() {
    let (proxy, mut stream) = way().await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();

    proxy.redirect(other.local_addr().unwrap());
    proxy.heal();

    let _redirected = TcpStream::connect(proxy.address()).await.unwrap();
    timeout(SOON, other.accept()).await.unwrap().unwrap();
    assert_eq!(say(&mut stream, "as before").await.unwrap(), "as before");
}

#[tokio::test]
async fn the_answer_to_what_holds_the_needle_is_lost_though_it_was_done() {
    let (proxy, mut stream) = way().await;

    proxy.lose_answers("COMMIT");
    assert_eq!(say(&mut stream, "BEGIN").await.unwrap(), "BEGIN");
    stream.write_all(b"COM").await.unwrap();
    assert_eq!(timeout(SOON, stream.read(&mut [0; 3])).await.unwrap().unwrap(), 3);
    stream.write_all(b"MIT").await.unwrap();

    assert_eq!(end(&mut stream).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxy.lost(), 1, "the server had answered");
}

#[tokio::test]
async fn a_proxy_that_is_dropped_ends_its_connections() {
    let (proxy, mut stream) = way().await;

    drop(proxy);

    assert_eq!(end(&mut stream).await.unwrap(), 0);
}
