//! Floods of frames: abusive ones close their connection, legal ones slow down only their
//! connection.

use std::time::Duration;

use tokio::time::Instant;

use super::cost_report::{AbuseTotals, CostReport};
use super::frames::{
    GET_USER, HEALTH, block, call, fields, flag, frame, get_user, kind, open, ping, reset, settings, streams,
};
use super::raw_connection::{FloodResult, RawConnection};
use crate::service::TestService;

/// Duration of each flood.
const FLOOD_TIME: Duration = Duration::from_secs(1);
/// Longest time until an abusive connection is closed on a busy machine: the server allows ten
/// thousand resets at once.
const CLOSED_WITHIN: Duration = Duration::from_mins(1);

/// Floods one connection after another until [`FLOOD_TIME`] is over, each for at most `longest`.
async fn flood_repeatedly<I>(
    service: &TestService,
    longest: Duration,
    flood: impl Fn() -> I,
) -> (AbuseTotals, Vec<FloodResult>)
where
    I: Iterator<Item = Vec<u8>>,
{
    let until = Instant::now() + FLOOD_TIME;
    let mut floods = Vec::new();
    while Instant::now() < until {
        floods.push(RawConnection::connect(service.address).await.flood(Instant::now() + longest, flood()).await);
    }
    let sent = floods.iter().map(|flood| flood.sent).sum();
    (AbuseTotals { connections: floods.len().try_into().unwrap(), sent }, floods)
}

/// Asserts that the server closes every connection with this flood.
async fn expect_closed<I: Iterator<Item = Vec<u8>>>(report: &mut CostReport, name: &str, flood: impl Fn() -> I) {
    let mut ended = Vec::new();
    report
        .measure(name, async |service| {
            let (totals, floods) = flood_repeatedly(service, CLOSED_WITHIN, flood).await;
            ended = floods;
            totals
        })
        .await;
    let not_closed = ended.iter().find(|flood| !flood.closed_as_abuse());
    assert!(not_closed.is_none(), "{name}: {not_closed:?}");
}

/// Asserts that the server keeps connections with this legal flood open.
async fn expect_tolerated<I: Iterator<Item = Vec<u8>>>(report: &mut CostReport, name: &str, flood: impl Fn() -> I) {
    report
        .measure(name, async |service| {
            let (totals, floods) = flood_repeatedly(service, FLOOD_TIME, flood).await;
            let ended = floods.iter().find(|flood| flood.closed);
            assert!(ended.is_none(), "{name}: {ended:?}");
            totals
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_frames_affects_only_its_own_connection() {
    let mut report = CostReport::start("floods of frames", TestService::start("user", &[]).await).await;

    expect_closed(&mut report, "rapid reset", || {
        streams().map(|stream| [call(stream, GET_USER, &get_user("nobody")), reset(stream)].concat())
    })
    .await;
    expect_closed(&mut report, "rapid reset of calls without a message", || {
        streams().map(|stream| [open(stream, GET_USER), reset(stream)].concat())
    })
    .await;
    expect_closed(&mut report, "CONTINUATION without end", || {
        let first = frame(kind::HEADERS, flag::NONE, 1, &block(&fields(HEALTH)));
        let more = frame(kind::CONTINUATION, flag::NONE, 1, &block(&[("x-more", &"x".repeat(1000))]));
        std::iter::once(first).chain(std::iter::repeat(more))
    })
    .await;
    expect_closed(&mut report, "empty CONTINUATION without end", || {
        let first = frame(kind::HEADERS, flag::NONE, 1, &block(&fields(HEALTH)));
        std::iter::once(first).chain(std::iter::repeat(frame(kind::CONTINUATION, flag::NONE, 1, &[])))
    })
    .await;
    expect_closed(&mut report, "bytes of a message, one in a frame", || {
        let byte = frame(kind::DATA, flag::NONE, 1, &[0]);
        std::iter::once(open(1, HEALTH)).chain(std::iter::repeat(byte))
    })
    .await;
    expect_closed(&mut report, "calls, far more than may run at once", || {
        streams().map(|stream| call(stream, HEALTH, &[]))
    })
    .await;
    expect_tolerated(&mut report, "PING", || std::iter::repeat_with(ping)).await;
    expect_tolerated(&mut report, "SETTINGS", || std::iter::repeat(settings(&[(4, 65_535)]))).await;
    expect_tolerated(&mut report, "PRIORITY", || {
        streams().map(|stream| frame(kind::PRIORITY, flag::NONE, stream + 2, &[0, 0, 0, 1, 7]))
    })
    .await;
    expect_tolerated(&mut report, "frames of an unknown type", || {
        std::iter::repeat(frame(0xbb, flag::NONE, 1, b"what?"))
    })
    .await;
    report.finish().await;
}
