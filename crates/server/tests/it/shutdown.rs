//! Shutdown of a server: orderly for cooperative clients, bounded in time for all others.

use std::time::{Duration, Instant};

use tidings_server::{Args, Drained};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::raw_http2::{GOAWAY, SETTINGS};
use crate::support::{SOON, TestServer, call, no_lame_duck};

const DRAIN: Duration = Duration::from_millis(300);

async fn start() -> TestServer {
    TestServer::with(Args { drain: DRAIN.into(), ..no_lame_duck() }).await
}

/// Stops the server and asserts that it ends in time.
async fn stop_in_time(server: TestServer) -> Drained {
    let start = Instant::now();
    let drained = timeout(SOON, server.stop()).await.unwrap();
    let took = start.elapsed();
    assert!(took < DRAIN + Duration::from_secs(1), "took {took:?}");
    drained
}

#[tokio::test]
async fn an_idle_tcp_client_does_not_delay_shutdown() {
    let server = start().await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    call(&server.channel().await, "/test.v1.Probe/Answer").await.unwrap();

    stop_in_time(server).await;

    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_client_that_holds_an_endless_stream_is_cut() {
    let server = start().await;
    let probe = server.probe.clone();
    let channel = server.channel().await;
    let endless = tokio::spawn(async move { call(&channel, "/test.v1.Probe/Endless").await });
    probe.runs(1).await;

    let drained = stop_in_time(server).await;

    assert_eq!(drained, Drained { cut: 1 });
    assert_eq!(probe.running(), 0);
    timeout(SOON, endless).await.unwrap().unwrap().unwrap_err();
}

#[tokio::test]
async fn a_handler_that_never_answers_is_dropped() {
    let server = start().await;
    let probe = server.probe.clone();
    let channel = server.channel().await;
    let stuck = tokio::spawn(async move { call(&channel, "/test.v1.Probe/Work").await });
    probe.runs(1).await;

    let drained = stop_in_time(server).await;

    assert_eq!(drained, Drained { cut: 1 });
    assert_eq!(probe.running(), 0);
    timeout(SOON, stuck).await.unwrap().unwrap().unwrap_err();
}

#[tokio::test]
async fn an_unresponsive_http2_client_is_cut() {
    let server = start().await;
    let mut silent = server.raw().await;
    assert!(silent.receives(SETTINGS).await);

    let drained = stop_in_time(server).await;

    assert_eq!(drained, Drained { cut: 1 });
}

#[tokio::test]
async fn calls_in_flight_finish_and_clients_get_goaway() {
    let server = TestServer::start().await;
    let probe = server.probe.clone();
    let channel = server.channel().await;
    let in_flight = tokio::spawn(async move { call(&channel, "/test.v1.Probe/Wait").await });
    let mut other = server.raw().await;
    assert!(other.receives(SETTINGS).await);
    probe.runs(1).await;

    let address = server.address;
    let stopping = tokio::spawn(server.stop());
    assert!(other.receives(GOAWAY).await);
    TcpStream::connect(address).await.unwrap_err();
    drop(other);
    assert!(!stopping.is_finished());
    probe.release();

    timeout(SOON, in_flight).await.unwrap().unwrap().unwrap();
    let drained = timeout(SOON, stopping).await.unwrap().unwrap();
    assert_eq!(drained, Drained { cut: 0 });
}
