//! Clients that read slowly, and clients that have stopped.

use std::time::Duration;

use tidings_server::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout};

use crate::support::raw_http2::{RawHttp2, SETTINGS, call, frame};
use crate::support::{SOON, TestServer, no_lame_duck};

/// Settings under which a client counts as dead that neither answers a PING nor reads for this
/// time.
fn keepalive(limit: Duration) -> Args {
    let keepalive_interval = Duration::from_millis(10).into();
    Args { keepalive_interval, keepalive_timeout: limit.into(), ..no_lame_duck() }
}

/// Opens a stream of as much data as the client reads, with windows of 1 GiB.
async fn flood(server: &TestServer) -> RawHttp2 {
    const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];
    const WINDOW_UPDATE: u8 = 8;
    let window = 1_u32 << 30;
    let mut client = server.raw().await;
    let settings = frame(SETTINGS, 0, 0, &[&INITIAL_WINDOW_SIZE[..], &window.to_be_bytes()].concat());
    let update = frame(WINDOW_UPDATE, 0, 0, &window.to_be_bytes());
    client.0.write_all(&[settings, update, call(1, "/test.v1.Probe/Flood")].concat()).await.unwrap();
    server.probe.runs(1).await;
    client
}

/// The client answers no PING, because it has not read that far: a slow link carries the data
/// before the PING for longer than the timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_slowly_is_not_disconnected() {
    let limit = Duration::from_secs(1);
    let server = TestServer::with(keepalive(limit)).await;
    let mut client = flood(&server).await;

    let start = Instant::now();
    while start.elapsed() < limit * 3 {
        client.0.read_exact(&mut [0; 16 << 10]).await.expect("the connection was cut");
        sleep(Duration::from_millis(20)).await;
    }

    assert_eq!(server.probe.running(), 1);
}

#[tokio::test]
async fn a_client_that_stops_to_read_is_disconnected() {
    let server = TestServer::with(keepalive(Duration::from_millis(300))).await;
    let _client = flood(&server).await;

    timeout(SOON, server.probe.runs(0)).await.unwrap();
}
