//! Limits for one client, and for all clients together.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tidings_server::Args;
use tidings_status::Failure;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tonic::Code;

use crate::support::raw_http2::{GOAWAY, PREFACE, RawHttp2, SETTINGS};
use crate::support::{SOON, TestServer, call, follow, no_lame_duck};

/// Long enough for a server to do anything it must not do.
const SHORT_WAIT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_socket_without_a_full_preface_is_closed_after_a_timeout() {
    let server = TestServer::with(Args { preface_timeout: SHORT_WAIT.into(), ..no_lame_duck() }).await;

    for sent in [&PREFACE[..0], &PREFACE[..10]] {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        let start = Instant::now();
        socket.write_all(sent).await.unwrap();
        let read = timeout(SOON, socket.read(&mut [0; 1])).await.unwrap();
        assert_eq!(read.unwrap(), 0);
        assert!(start.elapsed() >= SHORT_WAIT);
    }
}

#[tokio::test]
async fn a_client_with_another_protocol_is_disconnected_at_once() {
    let server = TestServer::start().await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();

    socket.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n").await.unwrap();

    // The server did not read the bytes after the preface, so the close may arrive as a reset.
    let read = timeout(Duration::from_secs(1), socket.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_disconnected() {
    let server = TestServer::with(Args {
        keepalive_interval: Duration::from_millis(100).into(),
        keepalive_timeout: Duration::from_millis(100).into(),
        ..no_lame_duck()
    })
    .await;
    let mut silent = server.raw().await;

    assert!(silent.receives(GOAWAY).await);
    assert!(!silent.receives(GOAWAY).await, "the connection is still open");
}

#[tokio::test]
async fn a_connection_runs_at_most_max_streams_calls_at_once() {
    let server = TestServer::with(Args { max_streams: Some(2), ..no_lame_duck() }).await;
    let channel = server.channel().await;
    // The client knows no limit until it has received the settings of the server.
    call(&channel, "/test.v1.Probe/Answer").await.unwrap();

    let calls = tokio::spawn(async move {
        let calls = (0..5).map(|_| call(&channel, "/test.v1.Probe/Wait"));
        join_all(calls).await
    });
    timeout(SOON, server.probe.runs(2)).await.unwrap();
    sleep(SHORT_WAIT).await;
    assert_eq!(server.probe.running(), 2);

    server.probe.release();
    let responses = timeout(SOON, calls).await.unwrap().unwrap();
    assert!(responses.iter().all(Result::is_ok), "{responses:?}");
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_for_a_free_slot() {
    let server = TestServer::with(Args { max_connections: 1, ..no_lame_duck() }).await;
    let mut first = server.raw().await;
    assert!(first.receives(SETTINGS).await);

    let mut second = server.raw().await;
    timeout(SHORT_WAIT, second.receives(SETTINGS)).await.unwrap_err();

    drop(first);
    assert!(second.receives(SETTINGS).await);
}

#[tokio::test]
async fn many_clients_are_served_concurrently() {
    let server = TestServer::start().await;
    let mut clients: Vec<RawHttp2> = join_all((0..50).map(|_| server.raw())).await;

    for client in &mut clients {
        assert!(client.receives(SETTINGS).await);
    }
}

/// Calls that wait for a lock do not count.
#[tokio::test]
async fn calls_beyond_max_in_flight_are_refused_at_once() {
    let server = TestServer::with(Args { max_in_flight: 2, ..no_lame_duck() }).await;
    let channels = join_all((0..4).map(|_| server.channel())).await;
    let working: Vec<_> = (0..2)
        .map(|number| {
            let channel = channels[number].clone();
            tokio::spawn(async move { call(&channel, "/test.v1.Probe/Work").await })
        })
        .collect();
    let waiting = channels[2].clone();
    let waiting = tokio::spawn(async move { call(&waiting, "/test.v1.Probe/Wait").await });
    server.probe.runs(3).await;

    let refused = Failure::from(&call(&channels[3], "/test.v1.Probe/Work").await.unwrap_err());

    assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(refused.retry_after.is_some());
    server.probe.release();
    for call in working.into_iter().chain([waiting]) {
        timeout(SOON, call).await.unwrap().unwrap().unwrap();
    }
    call(&channels[3], "/test.v1.Probe/Work").await.unwrap();
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_at_once() {
    let server = TestServer::with(Args { max_open_streams: 1, ..no_lame_duck() }).await;
    let channel = server.channel().await;
    let stream = channel.clone();
    let open = tokio::spawn(async move { follow(&stream, "/test.v1.Probe/Stream").await });
    server.probe.runs(1).await;

    let refused = follow(&channel, "/test.v1.Probe/Stream").await.unwrap_err();

    assert_eq!(refused.code(), Code::ResourceExhausted);
    open.abort();
    server.probe.runs(0).await;
}

/// A client would queue the calls without an error.
#[tokio::test]
async fn streams_leave_room_for_short_calls_of_a_connection() {
    let server = TestServer::with(Args { max_streams: Some(4), ..no_lame_duck() }).await;
    let channel = server.channel().await;
    let streams: Vec<_> = (0..3)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move { follow(&channel, "/test.v1.Probe/Stream").await })
        })
        .collect();
    server.probe.runs(3).await;

    let refused = Failure::from(&follow(&channel, "/test.v1.Probe/Stream").await.unwrap_err());

    assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(refused.message.contains("on this connection: at most 3"), "{}", refused.message);
    call(&channel, "/test.v1.Probe/Answer").await.unwrap();
    call(&server.channel().await, "/test.v1.Probe/Answer").await.unwrap();
    streams.iter().for_each(tokio::task::JoinHandle::abort);
    server.probe.runs(0).await;
}
