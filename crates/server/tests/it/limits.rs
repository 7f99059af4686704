//! What one client, or all of them together, cannot take.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tidings_server::Args;
use tidings_status::Failure;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tonic::Code;

use crate::support::raw::{GOAWAY, PREFACE, Raw, SETTINGS};
use crate::support::{Running, SOON, call, call_as, follow, quick};

/// Long enough for a server to do what it must not do.
const WHILE: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_socket_that_never_finishes_the_preface_is_closed_after_the_timeout() {
    let server = Running::with(Args { preface_timeout: WHILE.into(), ..quick() }).await;

    for sent in [&PREFACE[..0], &PREFACE[..10]] {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        let start = Instant::now();
        socket.write_all(sent).await.unwrap();
        let read = timeout(SOON, socket.read(&mut [0; 1])).await.unwrap();
        assert_eq!(read.unwrap(), 0);
        assert!(start.elapsed() >= WHILE);
    }
}

#[tokio::test]
async fn a_client_that_speaks_another_protocol_is_closed_at_once() {
    let server = Running::start().await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();

    let request = b"GET / HTTP/1.1\r\nhost: tidings\r\n\r\n";
    socket.write_all(request).await.unwrap();

    // What it sent beyond the length of a preface was not read, so the close may come as a reset.
    let read = timeout(Duration::from_secs(1), socket.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_closed() {
    let server = Running::with(Args {
        keepalive_interval: Duration::from_millis(100).into(),
        keepalive_timeout: Duration::from_millis(100).into(),
        ..quick()
    })
    .await;
    let mut silent = server.raw().await;

    assert!(silent.receives(GOAWAY).await);
    assert!(!silent.receives(GOAWAY).await, "the connection is still open");
}

#[tokio::test]
async fn no_more_calls_run_at_once_on_a_connection_than_allowed() {
    let server = Running::with(Args { max_streams: 2, ..quick() }).await;
    let channel = server.channel().await;
    // Until the client has seen the settings of the server it knows no limit.
    call(&channel, "/test.v1.Probe/Answer").await.unwrap();

    let calls = tokio::spawn(async move {
        let calls = (0..5).map(|_| call(&channel, "/test.v1.Probe/Wait"));
        join_all(calls).await
    });
    timeout(SOON, server.probe.runs(2)).await.unwrap();
    sleep(WHILE).await;
    assert_eq!(server.probe.running(), 2);

    server.probe.release();
    let answers = timeout(SOON, calls).await.unwrap().unwrap();
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_for_a_free_slot() {
    let server = Running::with(Args { max_connections: 1, ..quick() }).await;
    let mut first = server.raw().await;
    assert!(first.receives(SETTINGS).await);

    let mut second = server.raw().await;
    timeout(WHILE, second.receives(SETTINGS)).await.unwrap_err();

    drop(first);
    assert!(second.receives(SETTINGS).await);
}

#[tokio::test]
async fn headers_of_more_than_16_kib_are_refused_and_the_server_lives_on() {
    let server = Running::start().await;
    let channel = server.channel().await;
    let huge = "x".repeat(20 << 10);

    let refused = call_as(&channel, "/test.v1.Probe/Answer", Some(&huge)).await.unwrap_err();

    assert_ne!(refused.code(), Code::Ok);
    call(&channel, "/test.v1.Probe/Answer").await.unwrap();
}

#[tokio::test]
async fn many_clients_are_served_side_by_side() {
    let server = Running::start().await;
    let mut clients: Vec<Raw> = join_all((0..50).map(|_| server.raw())).await;

    for client in &mut clients {
        assert!(client.receives(SETTINGS).await);
    }
}

#[tokio::test]
async fn calls_beyond_the_limit_are_refused_at_once_and_those_that_wait_are_no_calls_in_flight() {
    let server = Running::with(Args { max_in_flight: 2, ..quick() }).await;
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
    let server = Running::with(Args { max_open_streams: 1, ..quick() }).await;
    let channel = server.channel().await;
    let stream = channel.clone();
    let open = tokio::spawn(async move { follow(&stream, "/test.v1.Probe/Stream").await });
    server.probe.runs(1).await;

    let refused = follow(&channel, "/test.v1.Probe/Stream").await.unwrap_err();

    assert_eq!(refused.code(), Code::ResourceExhausted);
    open.abort();
    server.probe.runs(0).await;
}
