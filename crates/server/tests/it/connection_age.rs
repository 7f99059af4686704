//! The maximum age of connections, and the end of their streams.

use std::time::{Duration, Instant};

use tidings_server::Args;
use tidings_status::Failure;
use tokio::time::timeout;
use tonic::Code;

use crate::support::raw_http2::GOAWAY;
use crate::support::{SOON, TestServer, call, follow, no_lame_duck};

const AGE: Duration = Duration::from_millis(300);
const GRACE: Duration = Duration::from_millis(500);

async fn start() -> TestServer {
    let age = AGE.into();
    TestServer::with(Args { connection_age: age, connection_grace: GRACE.into(), ..no_lame_duck() }).await
}

#[tokio::test]
async fn an_aged_connection_gets_goaway_and_is_cut_after_the_grace() {
    let server = start().await;
    let begin = Instant::now();
    let mut silent = server.raw().await;

    assert!(silent.receives(GOAWAY).await);
    assert!(begin.elapsed() >= AGE.mul_f64(0.9));
    assert!(!silent.receives(GOAWAY).await, "it is closed");
    assert!(begin.elapsed() >= AGE.mul_f64(0.9) + GRACE);
}

#[tokio::test]
async fn a_call_on_an_aged_connection_completes() {
    let server = start().await;
    let probe = server.probe.clone();
    let channel = server.channel().await;
    let calling = tokio::spawn(async move { call(&channel, "/test.v1.Probe/Wait").await });
    probe.runs(1).await;
    tokio::time::sleep(AGE.mul_f64(1.2)).await;

    probe.release();

    timeout(SOON, calling).await.unwrap().unwrap().unwrap();
}

/// A service that handles the drain signal ends its stream itself; any other stream gets DRAINING.
#[tokio::test]
async fn a_stream_on_an_aged_connection_ends_or_gets_draining() {
    let server = start().await;

    follow(&server.channel().await, "/test.v1.Probe/HandlesDrain").await.unwrap();
    let ended = follow(&server.channel().await, "/test.v1.Probe/Stream").await.unwrap_err();

    let failure = Failure::from(&ended);
    assert_eq!((failure.code, failure.reason.as_str()), (Code::Unavailable, "DRAINING"));
    assert_eq!(failure.retry_after, Some(Duration::ZERO), "clients reconnect at once");
    assert_eq!(failure.metadata["cause"], "connection_age");
    server.probe.runs(0).await;
}

/// Without it, the call would be cut at the end of the grace.
#[tokio::test]
async fn a_waiting_call_on_an_aged_connection_gets_draining() {
    let server = start().await;

    let ended = call(&server.channel().await, "/test.v1.Probe/Wait").await.unwrap_err();

    let failure = Failure::from(&ended);
    assert_eq!((failure.code, failure.reason.as_str()), (Code::Unavailable, "DRAINING"));
    assert_eq!(failure.metadata["cause"], "connection_age");
    server.probe.runs(0).await;
}

#[tokio::test]
async fn draining_reports_a_shutdown_as_its_cause() {
    let server = TestServer::with(Args { drain: Duration::from_secs(1).into(), ..no_lame_duck() }).await;
    let channel = server.channel().await;
    let waiting = tokio::spawn(async move { call(&channel, "/test.v1.Probe/Wait").await });
    server.probe.runs(1).await;

    server.stop().await;

    let failure = Failure::from(&waiting.await.unwrap().unwrap_err());
    assert_eq!((failure.reason.as_str(), failure.metadata["cause"].as_str()), ("DRAINING", "shutdown"));
}

/// No connection has to be cut.
#[tokio::test]
async fn streams_end_within_the_drain_time_at_shutdown() {
    let server = TestServer::with(Args { drain: Duration::from_secs(2).into(), ..no_lame_duck() }).await;
    let (handles_drain, ignores_drain) = (server.channel().await, server.channel().await);
    let handles_drain = tokio::spawn(async move { follow(&handles_drain, "/test.v1.Probe/HandlesDrain").await });
    let ignores_drain = tokio::spawn(async move { follow(&ignores_drain, "/test.v1.Probe/Stream").await });
    server.probe.runs(2).await;

    let drained = server.stop().await;

    assert_eq!(drained.cut, 0);
    handles_drain.await.unwrap().unwrap();
    assert_eq!(ignores_drain.await.unwrap().unwrap_err().code(), Code::Unavailable);
}
