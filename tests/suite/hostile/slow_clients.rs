//! Slow clients: unfinished connections and calls time out, and other callers do not wait for them.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, interval, timeout};

use super::cost_report::{AbuseTotals, CostReport};
use super::frames::{GET_USER, HEALTH, PREFACE, block, fields, flag, frame, get_user, kind, message, open, settings};
use super::raw_connection::RawConnection;
use crate::service::{MAX_WAIT, TestService};

/// Number of concurrent slow clients.
const CLIENTS: u64 = 200;
/// Interval in which a slow client sends a byte.
const BYTE_INTERVAL: Duration = Duration::from_millis(200);

/// Opens connections; on each, sends `first` at once and then `bytes` one at a time until the
/// server closes it. Returns also the lifetime of the last one to end.
async fn send_slowly(service: &TestService, first: &[u8], bytes: &[u8]) -> (AbuseTotals, Duration) {
    let start = Instant::now();
    let client = async || {
        let mut connection = RawConnection::connect_tcp(service.address).await;
        connection.send(first).await.unwrap();
        let mut ticks = interval(BYTE_INTERVAL);
        for byte in bytes {
            // Nothing is read in this loop: a failed write shows that the connection has ended.
            ticks.tick().await;
            if connection.send(&[*byte]).await.is_err() {
                return;
            }
        }
        connection.read_to_end(MAX_WAIT).await;
    };
    timeout(2 * MAX_WAIT, join_all((0..CLIENTS).map(|_| client()))).await.expect("the end of all connections");
    (AbuseTotals { connections: CLIENTS, sent: CLIENTS }, start.elapsed())
}

/// Sends requests byte by byte on otherwise well-behaved connections; the server answers each call
/// at its deadline.
async fn send_requests_slowly(service: &TestService) -> AbuseTotals {
    let start = Instant::now();
    let client = async || {
        let mut connection = RawConnection::connect(service.address).await;
        connection.send(&open(1, GET_USER)).await.unwrap();
        let request = message(&get_user("nobody-of-this-name-is-here"));
        let mut ticks = interval(BYTE_INTERVAL);
        for byte in request {
            ticks.tick().await;
            connection.send(&frame(kind::DATA, flag::NONE, 1, &[byte])).await.unwrap();
        }
        connection.respond_until(kind::HEADERS).await.is_some_and(|frame| frame.has(flag::END_STREAM))
    };
    let answered =
        timeout(2 * MAX_WAIT, join_all((0..CLIENTS).map(|_| client()))).await.expect("a response to each call");
    assert!(answered.into_iter().all(|answered| answered), "calls were not answered");
    // The server caps this method at 5 s.
    assert!(start.elapsed() < Duration::from_secs(12), "answered after {:?}", start.elapsed());
    AbuseTotals { connections: CLIENTS, sent: CLIENTS }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_connections_and_calls_time_out() {
    let flags = ["--keepalive-interval", "1s", "--keepalive-timeout", "1s"];
    let mut report = CostReport::start("slow clients", TestService::start("user", &flags).await).await;
    let headers = frame(kind::HEADERS, flag::END_HEADERS, 1, &block(&fields(HEALTH)));
    let part = frame(kind::HEADERS, flag::NONE, 1, &block(&fields(HEALTH)));
    let more = frame(kind::CONTINUATION, flag::NONE, 1, &block(&[("x-slow", &"x".repeat(1000))]));
    let preface = [PREFACE, &settings(&[])].concat();
    let open_headers = [PREFACE, &settings(&[]), &part].concat();

    let cases: [(&str, &[u8], &[u8]); 5] = [
        ("sockets that send nothing", &[], &[]),
        ("a preface, byte by byte", &[], PREFACE),
        ("connections that acknowledge no PING", &preface, &[]),
        ("headers, byte by byte", &preface, &headers),
        ("more headers, byte by byte", &open_headers, &more),
    ];
    for (name, first, bytes) in cases {
        let mut lifetime = Duration::ZERO;
        let measured = report.measure(name, async |service| {
            let (totals, longest) = send_slowly(service, first, bytes).await;
            lifetime = longest;
            totals
        });
        measured.await;
        // 3 s for the preface, 2 s for the PING and its ACK; the rest is for a busy machine.
        assert!(lifetime < Duration::from_secs(8), "{name}: open for {lifetime:?}");
    }
    report.measure("requests, byte by byte", send_requests_slowly).await;
    report.finish().await;
}
