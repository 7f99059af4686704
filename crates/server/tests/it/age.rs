//! The age of connections, and how their streams end.

use std::time::{Duration, Instant};

use tidings_server::Args;
use tidings_status::Failure;
use tokio::time::timeout;
use tonic::Code;

use crate::support::raw::GOAWAY;
use crate::support::{Running, SOON, call, follow, quick};

const AGE: Duration = Duration::from_millis(300);
const GRACE: Duration = Duration::from_millis(500);

async fn start() -> Running {
    let age = AGE.into();
    Running::with(Args { connection_age: age, connection_grace: GRACE.into(), ..quick() }).await
}

#[tokio::test]
async fn a_connection_of_that_age_is_told_to_go_away_and_cut_after_the_grace() {
    let server = start().await;
    let begin = Instant::now();
    let mut silent = server.raw().await;

    assert!(silent.receives(GOAWAY).await);
    assert!(begin.elapsed() >= AGE.mul_f64(0.9));
    assert!(!silent.receives(GOAWAY).await, "it is closed");
    assert!(begin.elapsed() >= AGE.mul_f64(0.9) + GRACE);
}

#[tokio::test]
async fn a_call_on_a_connection_of_that_age_finishes() {
    let server = start().await;
    let probe = server.probe.clone();
    let channel = server.channel().await;
    let calling = tokio::spawn(async move { call(&channel, "/test.v1.Probe/Wait").await });
    probe.runs(1).await;
    tokio::time::sleep(AGE.mul_f64(1.2)).await;

    probe.release();

    timeout(SOON, calling).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_on_a_connection_of_that_age_ends_by_itself_or_is_told_draining() {
    let server = start().await;

    follow(&server.channel().await, "/test.v1.Probe/Polite").await.unwrap();
    let ended = follow(&server.channel().await, "/test.v1.Probe/Stream").await.unwrap_err();

    let failure = Failure::from(&ended);
    assert_eq!((failure.code, failure.reason.as_str()), (Code::Unavailable, "DRAINING"));
    assert_eq!(failure.retry_after, Some(Duration::ZERO), "elsewhere, at once");
    server.probe.runs(0).await;
}

#[tokio::test]
async fn on_shutdown_a_stream_ends_by_itself_or_is_told_draining_and_nothing_is_cut() {
    let server = Running::with(Args { drain: Duration::from_secs(2).into(), ..quick() }).await;
    let (polite, other) = (server.channel().await, server.channel().await);
    let polite = tokio::spawn(async move { follow(&polite, "/test.v1.Probe/Polite").await });
    let other = tokio::spawn(async move { follow(&other, "/test.v1.Probe/Stream").await });
    server.probe.runs(2).await;

    let drained = server.stop().await;

    assert_eq!(drained.cut, 0);
    polite.await.unwrap().unwrap();
    assert_eq!(other.await.unwrap().unwrap_err().code(), Code::Unavailable);
}
