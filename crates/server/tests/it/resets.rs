//! Calls that clients give up: in large numbers when a deadline passes for all of them, and as an
//! attack.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::support::raw_http2::{RawHttp2, call, open, reset};
use crate::support::{SOON, TestServer, call as grpc_call};

const WAIT: &str = "/test.v1.Probe/Wait";
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";

/// Returns the frames of calls that are started and cancelled at once, one after the other.
fn cancelled_calls(path: &str, first: u32, count: u32) -> Vec<u8> {
    let streams = (first..first + count).map(|number| 2 * number + 1);
    streams.flat_map(|stream| [open(stream, path), reset(stream)].concat()).collect()
}

/// A process that was stopped finds calls and their cancellations together in its socket.
#[tokio::test]
async fn a_thousand_late_deadlines_do_not_end_a_connection() {
    let server = TestServer::start().await;
    let mut client = server.raw().await;
    client.0.write_all(&call(1, WAIT)).await.unwrap();
    server.probe.runs(1).await;

    client.0.write_all(&cancelled_calls(WAIT, 1, 1_000)).await.unwrap();

    assert!(client.is_open().await);
    server.probe.runs(1).await;
}

/// The calls run, so that their cancellations are not found together.
#[tokio::test]
async fn a_thousand_running_calls_may_be_cancelled_together() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    let survivor = tokio::spawn({
        let channel = channel.clone();
        async move { grpc_call(&channel, WAIT).await }
    });
    server.probe.runs(1).await;

    for _ in 0..10 {
        let calls = (0..100).map(|_| timeout(Duration::from_millis(100), grpc_call(&channel, WAIT)));
        let late = join_all(calls).await;
        assert!(late.iter().all(Result::is_err));
    }

    server.probe.release();
    timeout(SOON, survivor).await.unwrap().unwrap().unwrap();
}

/// Both of calls that wait, and of calls whose handler misses the message and fails at once.
#[tokio::test]
async fn a_rapid_reset_ends_the_connection() {
    for path in [WAIT, HEALTH_CHECK] {
        reset_until_closed(path).await;
    }
}

/// Starts and cancels calls of this method until the server closes the connection.
async fn reset_until_closed(path: &str) {
    let server = TestServer::start().await;
    let RawHttp2(stream) = server.raw().await;
    let (mut read, mut write) = stream.into_split();
    let reading = tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });

    let attack = async {
        for batch in 0..100 {
            if write.write_all(&cancelled_calls(path, batch * 1_000, 1_000)).await.is_err() {
                break;
            }
        }
    };

    timeout(Duration::from_mins(1), attack).await.unwrap();
    // The end may arrive as a reset.
    let _ = timeout(Duration::from_mins(1), reading).await.unwrap();
    server.probe.runs(0).await;
}
