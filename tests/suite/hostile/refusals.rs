//! Calls that exceed a limit or are invalid: each fails with the status code that names the cause.

use std::time::Duration;

use prost::Message as _;
use sqlx::{Connection as _, PgConnection};
use tidings_devstack::testing;
use tidings_proto::user::{Consistency, CreateUserRequest, GetUserRequest, User};
use tokio::time::Instant;
use tonic::Code;

use super::calls::refusal;
use super::frames::{GET_USER, HEALTH, get_user};
use super::grpc_client::GrpcClient;
use crate::service::TestService;

/// Allowance for a busy machine, added to timeouts.
const SLACK: Duration = Duration::from_secs(3);

/// The server caps the deadline of this method at 5 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_past_its_deadline_gets_deadline_exceeded() {
    let service = TestService::start("user", &[]).await;
    let client = GrpcClient::connect(service.address).await;
    let start = Instant::now();

    let late = client.open(GET_USER, &[("grpc-timeout", "300m")]).await.response();
    let capped = client.open(GET_USER, &[]).await.response();
    let capped_too = client.open(GET_USER, &[("grpc-timeout", "1H")]).await.response();
    let (late, capped, capped_too) = tokio::join!(
        async { (refusal(late.await), start.elapsed()) },
        async { (refusal(capped.await), start.elapsed()) },
        async { (refusal(capped_too.await), start.elapsed()) },
    );

    let expected = (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".to_owned());
    for ((result, took), limit) in [(late, 300), (capped, 5_000), (capped_too, 5_000)] {
        let limit = Duration::from_millis(limit);
        assert_eq!(result, expected);
        assert!(took >= limit && took < limit + SLACK, "took {took:?} instead of {limit:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_request_gets_a_client_error() {
    let service = TestService::start("user", &[]).await;
    let client = GrpcClient::connect(service.address).await;

    for timeout in ["5s", "S", "5", "-5S", "123456789S", "5 S"] {
        let result = client.call(GET_USER, &[("grpc-timeout", timeout)], &get_user("ada")).await;
        assert_eq!(refusal(result), (Code::InvalidArgument, "INVALID_TIMEOUT".to_owned()), "{timeout}");
    }
    let result = client.call(GET_USER, &[], &[0xff; 20]).await;
    assert_eq!(refusal(result), (Code::InvalidArgument, "UNDECODABLE".to_owned()));
    let result = client.call(GET_USER, &[], &vec![0; 300 * 1024]).await;
    assert_eq!(refusal(result), (Code::ResourceExhausted, "MESSAGE_TOO_LARGE".to_owned()));
    let result = client.call("/tidings.user.v1.UserService/NoSuchMethod", &[], &[]).await;
    assert_eq!(refusal(result), (Code::Unimplemented, "UNKNOWN_METHOD".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_above_the_size_limit_is_not_sent() {
    let service = TestService::start("user", &[]).await;
    let client = GrpcClient::connect(service.address).await;
    let ada = User { id: "ada".to_owned(), ..User::default() };
    let create = CreateUserRequest { user: Some(ada), ..CreateUserRequest::default() }.encode_to_vec();
    client.call("/tidings.user.v1.UserService/CreateUser", &[], &create).await.unwrap();
    let postgres = testing::shared().await.postgres();
    let mut connection = PgConnection::connect(&postgres.url(service.database())).await.unwrap();

    // No service writes such a row; only SQL by hand can.
    let grow = "UPDATE user_account SET bio = repeat('x', 4 << 20), version = version + 1";
    sqlx::raw_sql(grow).execute(&mut connection).await.unwrap();
    let strong = GetUserRequest { id: "ada".to_owned(), consistency: Consistency::Strong.into(), ..Default::default() };
    let result = client.call(GET_USER, &[], &strong.encode_to_vec()).await;

    assert_eq!(refusal(result), (Code::ResourceExhausted, "MESSAGE_TOO_LARGE".to_owned()));
    client.call(HEALTH, &[], &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_above_the_in_flight_limit_are_shed() {
    let service = TestService::start("user", &["--max-in-flight", "2"]).await;
    let (first, second, third) = tokio::join!(
        GrpcClient::connect(service.address),
        GrpcClient::connect(service.address),
        GrpcClient::connect(service.address)
    );
    let one = first.open(GET_USER, &[]).await;
    let two = second.open(GET_USER, &[]).await;
    // A response on the same connection shows that the server has read the frames before.
    first.call(HEALTH, &[], &[]).await.unwrap();
    second.call(HEALTH, &[], &[]).await.unwrap();

    let start = Instant::now();
    let shed = third.call(GET_USER, &[], &get_user("ada")).await.unwrap_err();

    assert!(start.elapsed() < Duration::from_secs(2), "the call was queued for {:?}", start.elapsed());
    assert_eq!((shed.code, shed.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(shed.retry_after.is_some(), "{shed}");
    third.call(HEALTH, &[], &[]).await.unwrap();
    for freed in [one, two] {
        assert_eq!(refusal(freed.finish(&get_user("ada")).await).0, Code::NotFound);
        assert_eq!(refusal(third.call(GET_USER, &[], &get_user("ada")).await).0, Code::NotFound);
    }
}
