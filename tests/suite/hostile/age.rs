//! Connections grow old: they are told to go, have a grace to finish what they began, and are cut after it.

use std::time::Duration;

use futures_util::future::join_all;
use prost::Message as _;
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tidings_proto::broadcast::subscribe_response::Frame;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use super::ends::{SUBSCRIBE, subscription};
use super::frames::{GET_USER, call, flag, get_user, kind, setting};
use super::plain::Plain;
use super::raw::Raw;
use crate::service::{SOON, Service};

/// The age at which connections end, +-10 %.
const AGE: Duration = Duration::from_secs(2);
/// How long they have then.
const GRACE: Duration = Duration::from_secs(2);
const FLAGS: [&str; 4] = ["--connection-age", "2s", "--connection-grace", "2s"];
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(1);
const CONNECTIONS: usize = 20;

/// When a connection is told to go, and when it has ended.
async fn ages(mut raw: Raw) -> (Duration, Duration) {
    let start = Instant::now();
    let told = timeout(SOON, raw.behave_until(kind::GOAWAY)).await.expect("to be told to go");
    assert!(told.is_some(), "the connection ended without a word");
    let told = start.elapsed();
    timeout(SOON, raw.behave()).await.expect("the end of the connection");
    (told, start.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_ends_at_its_age_give_or_take_a_tenth() {
    let service = Service::start("user", &FLAGS).await;

    let connections = (0..CONNECTIONS).map(async |_| ages(Raw::connect(service.address).await).await);
    let moments = join_all(connections).await;

    let (earliest, latest) = (AGE.mul_f64(0.89), AGE.mul_f64(1.1));
    for (told, ended) in &moments {
        assert!((earliest..latest + SLACK).contains(told), "told to go after {told:?}");
        assert!(*ended < *told + SLACK, "told to go after {told:?}, and ended after {ended:?}");
    }
    let mut told: Vec<_> = moments.iter().map(|(told, _)| *told).collect();
    told.sort_unstable();
    let spread = told[CONNECTIONS - 1].saturating_sub(told[0]);
    assert!(spread > AGE / 50, "all were told to go within {spread:?}, and come back together");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_in_flight_outlives_the_age_of_its_connection() {
    let service = Service::start("user", &FLAGS).await;
    let plain = Plain::connect(service.address).await;

    let half = plain.open(GET_USER, &[]).await;
    sleep(AGE + GRACE / 2).await;
    let told = half.finish(&get_user("nobody")).await.unwrap_err();

    assert_eq!((told.code, told.reason.as_str()), (Code::NotFound, "USER_NOT_FOUND"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_by_itself_within_the_grace_and_one_that_is_not_read_is_cut_after_it() {
    let service = Service::start("broadcast", &FLAGS).await;
    let start = Instant::now();

    let by_itself = async {
        let mut client = BroadcastServiceClient::new(service.channel().await);
        let mut stream = client.subscribe(subscription()).await.unwrap().into_inner();
        let mut goodbye = false;
        while let Some(response) = stream.message().await.unwrap() {
            goodbye |= matches!(response.frame, Some(Frame::Goodbye(_)));
        }
        assert!(goodbye, "the stream ended without a word");
        start.elapsed()
    };
    let unread = async {
        let mut raw = Raw::with(service.address, &[(setting::INITIAL_WINDOW_SIZE, 0)]).await;
        raw.send(&call(1, SUBSCRIBE, &subscription().encode_to_vec())).await.unwrap();
        raw.find(kind::HEADERS, flag::END_HEADERS).await.unwrap();
        ages(raw).await;
        start.elapsed()
    };
    let (by_itself, unread) = tokio::join!(by_itself, unread);

    assert!(by_itself > AGE.mul_f64(0.89) && by_itself < AGE.mul_f64(1.1) + GRACE + SLACK, "ended after {by_itself:?}");
    assert!(unread > AGE.mul_f64(0.89) + GRACE, "cut within its grace, after {unread:?}");
    assert!(unread < AGE.mul_f64(1.1) + GRACE + SLACK, "cut after {unread:?}");
}
