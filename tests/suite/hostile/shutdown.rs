//! SIGTERM with clients that stay connected: the process exits with 0, at most one second after its
//! drain time.

use std::time::Duration;

use prost::Message as _;
use tidings_proto::broadcast::{ChannelStart, SubscribeRequest};
use tokio::time::Instant;

use super::frames::{HEALTH, PREFACE, call, flag, kind, open, setting};
use super::raw_connection::RawConnection;
use crate::service::{MAX_WAIT, TestService};

/// Drain time that the service is started with.
const DRAIN: Duration = Duration::from_secs(1);
/// Allowance for a busy machine, also for the detection of the exit.
const SLACK: Duration = Duration::from_secs(2);

pub(crate) const SUBSCRIBE: &str = "/tidings.broadcast.v1.BroadcastService/Subscribe";

/// Returns a request for a stream that does not end by itself.
pub(crate) fn subscription() -> SubscribeRequest {
    SubscribeRequest { channels: vec![ChannelStart { channel: "news".to_owned(), start: None }] }
}

/// Connects clients with `hold`, sends SIGTERM, and asserts an exit with 0 in time.
async fn assert_stops_in_time(hold: impl AsyncFnOnce(&TestService) -> Vec<RawConnection>) {
    let mut service = TestService::start("broadcast", &["--lame-duck", "0s", "--drain", "1s"]).await;
    let clients = hold(&service).await;

    service.terminate();
    let start = Instant::now();
    let status = service.wait_for_exit(MAX_WAIT).await;

    let took = start.elapsed();
    assert!(status.is_some_and(|status| status.code() == Some(0)), "{status:?}: {}", service.log());
    assert!(took < DRAIN + Duration::from_secs(1) + SLACK, "took {took:?}: {}", service.log());
    service.assert_did_not_panic();
    drop(clients);
}

/// Opens a stream, reads the response headers, and reads nothing more.
async fn subscriber(service: &TestService, window: u32) -> RawConnection {
    let mut connection = RawConnection::connect_with(service.address, &[(setting::INITIAL_WINDOW_SIZE, window)]).await;
    connection.send(&call(1, SUBSCRIBE, &subscription().encode_to_vec())).await.unwrap();
    connection.wait_for_frame(kind::HEADERS, flag::END_HEADERS).await.unwrap();
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_connection_does_not_delay_shutdown() {
    let idle = assert_stops_in_time(async |service| vec![RawConnection::connect_tcp(service.address).await]);
    let preface_only = assert_stops_in_time(async |service| {
        let mut connection = RawConnection::connect_tcp(service.address).await;
        connection.send(PREFACE).await.unwrap();
        vec![connection]
    });
    let silent = assert_stops_in_time(async |service| {
        let mut connection = RawConnection::connect(service.address).await;
        connection.wait_for_frame(kind::SETTINGS, flag::ACK).await.unwrap(); // then ignores even PING
        vec![connection]
    });
    let unfinished_call = assert_stops_in_time(async |service| {
        let mut connection = RawConnection::connect(service.address).await;
        connection.send(&open(1, HEALTH)).await.unwrap();
        connection.wait_for_frame(kind::SETTINGS, flag::ACK).await.unwrap();
        vec![connection]
    });
    tokio::join!(idle, preface_only, silent, unfinished_call);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_stream_does_not_delay_shutdown() {
    let default_window = assert_stops_in_time(async |service| vec![subscriber(service, 65_535).await]);
    let zero_window = assert_stops_in_time(async |service| vec![subscriber(service, 0).await]);
    let many_streams = assert_stops_in_time(async |service| {
        let mut all = Vec::new();
        for _ in 0..100 {
            all.push(subscriber(service, 0).await);
        }
        all
    });
    tokio::join!(default_window, zero_window, many_streams);
}
