//! SIGTERM, whoever holds on: a process ends within its drain time and a second, and calls that success.

use std::time::Duration;

use prost::Message as _;
use tidings_proto::broadcast::{ChannelStart, SubscribeRequest};
use tokio::time::Instant;

use super::frames::{HEALTH, PREFACE, call, flag, kind, open, setting};
use super::raw::Raw;
use crate::service::{SOON, Service};

const DRAIN: Duration = Duration::from_secs(1);
/// What a busy machine may add: a process also has to be scheduled, and to be seen to have ended.
const SLACK: Duration = Duration::from_secs(2);

pub(crate) const SUBSCRIBE: &str = "/tidings.broadcast.v1.BroadcastService/Subscribe";

/// A request for a stream that ends only with its connection.
pub(crate) fn subscription() -> SubscribeRequest {
    SubscribeRequest { channels: vec![ChannelStart { channel: "news".to_owned(), start: None }] }
}

/// Lets clients hold on to a service, and asks it to stop.
async fn ends_in_time(hold: impl AsyncFnOnce(&Service) -> Vec<Raw>) {
    let mut service = Service::start("broadcast", &["--lame-duck", "0s", "--drain", "1s"]).await;
    let clients = hold(&service).await;

    service.terminate();
    let start = Instant::now();
    let status = service.ended(SOON).await;

    let took = start.elapsed();
    assert!(status.is_some_and(|status| status.code() == Some(0)), "{status:?}: {}", service.log());
    assert!(took < DRAIN + Duration::from_secs(1) + SLACK, "took {took:?}: {}", service.log());
    service.assert_did_not_panic();
    drop(clients);
}

/// A client that got an answer to the first frame of its stream and reads nothing more.
async fn subscriber(service: &Service, window: u32) -> Raw {
    let mut raw = Raw::with(service.address, &[(setting::INITIAL_WINDOW_SIZE, window)]).await;
    raw.send(&call(1, SUBSCRIBE, &subscription().encode_to_vec())).await.unwrap();
    raw.find(kind::HEADERS, flag::END_HEADERS).await.unwrap();
    raw
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_holds_on_does_not_keep_a_process_from_ending() {
    let idle = ends_in_time(async |service| vec![Raw::silent(service.address).await]);
    let preface_only = ends_in_time(async |service| {
        let mut raw = Raw::silent(service.address).await;
        raw.send(PREFACE).await.unwrap();
        vec![raw]
    });
    let silent = ends_in_time(async |service| {
        let mut raw = Raw::connect(service.address).await;
        raw.find(kind::SETTINGS, flag::ACK).await.unwrap(); // from now on it answers nothing, no PING either
        vec![raw]
    });
    let half_a_call = ends_in_time(async |service| {
        let mut raw = Raw::connect(service.address).await;
        raw.send(&open(1, HEALTH)).await.unwrap();
        raw.find(kind::SETTINGS, flag::ACK).await.unwrap();
        vec![raw]
    });
    tokio::join!(idle, preface_only, silent, half_a_call);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_stream_does_not_keep_a_process_from_ending() {
    let deaf = ends_in_time(async |service| vec![subscriber(service, 65_535).await]);
    let never_reading = ends_in_time(async |service| vec![subscriber(service, 0).await]);
    let many = ends_in_time(async |service| {
        let mut all = Vec::new();
        for _ in 0..100 {
            all.push(subscriber(service, 0).await);
        }
        all
    });
    tokio::join!(deaf, never_reading, many);
}
