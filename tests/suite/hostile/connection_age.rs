//! Maximum connection age: an aged connection gets a GOAWAY, may finish its calls within a grace
//! period, and is closed at its end.

use std::time::Duration;

use futures_util::future::join_all;
use prost::Message as _;
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tidings_proto::broadcast::subscribe_response::Frame;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use super::frames::{GET_USER, call, flag, get_user, kind, setting};
use super::grpc_client::GrpcClient;
use super::raw_connection::RawConnection;
use super::shutdown::{SUBSCRIBE, subscription};
use crate::service::{MAX_WAIT, TestService};

/// Age at which a connection gets its GOAWAY, with 10 % jitter in both directions.
const AGE: Duration = Duration::from_secs(2);
/// Time from the GOAWAY until the server closes the connection.
const GRACE: Duration = Duration::from_secs(2);
const FLAGS: [&str; 4] = ["--connection-age", "2s", "--connection-grace", "2s"];
/// Allowance for a busy machine.
const SLACK: Duration = Duration::from_secs(1);
const CONNECTIONS: usize = 20;

/// Returns the times until a connection gets a GOAWAY and until it is closed.
async fn goaway_and_end(mut connection: RawConnection) -> (Duration, Duration) {
    let start = Instant::now();
    let goaway = timeout(MAX_WAIT, connection.respond_until(kind::GOAWAY)).await.expect("a GOAWAY");
    assert!(goaway.is_some(), "the connection was closed without a GOAWAY");
    let goaway = start.elapsed();
    timeout(MAX_WAIT, connection.respond_until_end()).await.expect("the end of the connection");
    (goaway, start.elapsed())
}

/// Jitter spreads the ends of connections that were opened together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_ends_at_its_age_within_ten_percent() {
    let service = TestService::start("user", &FLAGS).await;

    let connections =
        (0..CONNECTIONS).map(async |_| goaway_and_end(RawConnection::connect(service.address).await).await);
    let times = join_all(connections).await;

    let (earliest, latest) = (AGE.mul_f64(0.89), AGE.mul_f64(1.1));
    for (goaway, ended) in &times {
        assert!((earliest..latest + SLACK).contains(goaway), "GOAWAY after {goaway:?}");
        assert!(*ended < *goaway + SLACK, "GOAWAY after {goaway:?}, closed after {ended:?}");
    }
    let mut goaways: Vec<_> = times.iter().map(|(goaway, _)| *goaway).collect();
    goaways.sort_unstable();
    let spread = goaways[CONNECTIONS - 1].saturating_sub(goaways[0]);
    assert!(spread > AGE / 50, "all GOAWAYs within {spread:?}: the clients would reconnect together");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_in_flight_completes_on_an_aged_connection() {
    let service = TestService::start("user", &FLAGS).await;
    let client = GrpcClient::connect(service.address).await;

    let open_call = client.open(GET_USER, &[]).await;
    sleep(AGE + GRACE / 2).await;
    let failure = open_call.finish(&get_user("nobody")).await.unwrap_err();

    assert_eq!((failure.code, failure.reason.as_str()), (Code::NotFound, "USER_NOT_FOUND"));
}

/// A stream that its client reads ends with a Goodbye; any other one ends with its connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_within_the_grace_and_unread_ones_after_it() {
    let service = TestService::start("broadcast", &FLAGS).await;
    let start = Instant::now();

    let read = async {
        let mut client = BroadcastServiceClient::new(service.channel().await);
        let mut stream = client.subscribe(subscription()).await.unwrap().into_inner();
        let mut goodbye = false;
        while let Some(response) = stream.message().await.unwrap() {
            goodbye |= matches!(response.frame, Some(Frame::Goodbye(_)));
        }
        assert!(goodbye, "the stream ended without a Goodbye");
        start.elapsed()
    };
    let unread = async {
        let mut connection = RawConnection::connect_with(service.address, &[(setting::INITIAL_WINDOW_SIZE, 0)]).await;
        connection.send(&call(1, SUBSCRIBE, &subscription().encode_to_vec())).await.unwrap();
        connection.wait_for_frame(kind::HEADERS, flag::END_HEADERS).await.unwrap();
        goaway_and_end(connection).await;
        start.elapsed()
    };
    let (read, unread) = tokio::join!(read, unread);

    assert!(read > AGE.mul_f64(0.89) && read < AGE.mul_f64(1.1) + GRACE + SLACK, "ended after {read:?}");
    assert!(unread > AGE.mul_f64(0.89) + GRACE, "closed within the grace period, after {unread:?}");
    assert!(unread < AGE.mul_f64(1.1) + GRACE + SLACK, "closed after {unread:?}");
}
