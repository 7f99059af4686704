//! Calls that ask for more than there is, or for what can not be: each is told so, by the code that says whose fault it is.

use std::time::Duration;

use prost::Message as _;
use sqlx::{Connection as _, PgConnection};
use tidings_devstack::testing;
use tidings_proto::user::{Consistency, CreateUserRequest, GetUserRequest, User};
use tokio::time::Instant;
use tonic::Code;

use super::calls::refusal;
use super::frames::{GET_USER, HEALTH, get_user};
use super::plain::Plain;
use crate::service::Service;

/// What a busy machine may add to a time-out.
const SLACK: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_past_its_deadline_is_told_so() {
    let service = Service::start("user", &[]).await;
    let plain = Plain::connect(service.address).await;
    let start = Instant::now();

    let late = plain.open(GET_USER, &[("grpc-timeout", "300m")]).await.answer();
    let capped = plain.open(GET_USER, &[]).await.answer();
    let capped_too = plain.open(GET_USER, &[("grpc-timeout", "1H")]).await.answer();
    let (late, capped, capped_too) = tokio::join!(
        async { (refusal(late.await), start.elapsed()) },
        async { (refusal(capped.await), start.elapsed()) },
        async { (refusal(capped_too.await), start.elapsed()) },
    );

    let expected = (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".to_owned());
    for ((told, took), limit) in [(late, 300), (capped, 5_000), (capped_too, 5_000)] {
        let limit = Duration::from_millis(limit);
        assert_eq!(told, expected);
        assert!(took >= limit && took < limit + SLACK, "took {took:?} instead of {limit:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_can_not_be_is_the_callers_fault() {
    let service = Service::start("user", &[]).await;
    let plain = Plain::connect(service.address).await;

    for timeout in ["5s", "S", "5", "-5S", "123456789S", "5 S"] {
        let told = plain.call(GET_USER, &[("grpc-timeout", timeout)], &get_user("ada")).await;
        assert_eq!(refusal(told), (Code::InvalidArgument, "INVALID_TIMEOUT".to_owned()), "{timeout}");
    }
    let told = plain.call(GET_USER, &[], &[0xff; 20]).await;
    assert_eq!(refusal(told), (Code::InvalidArgument, "UNDECODABLE".to_owned()));
    let told = plain.call(GET_USER, &[], &vec![0; 300 * 1024]).await;
    assert_eq!(refusal(told), (Code::ResourceExhausted, "MESSAGE_TOO_LARGE".to_owned()));
    let told = plain.call("/tidings.user.v1.UserService/NoSuchMethod", &[], &[]).await;
    assert_eq!(refusal(told), (Code::Unimplemented, "UNKNOWN_METHOD".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_above_the_limit_is_refused_instead_of_sent() {
    let service = Service::start("user", &[]).await;
    let plain = Plain::connect(service.address).await;
    let ada = User { id: "ada".to_owned(), ..User::default() };
    let create = CreateUserRequest { user: Some(ada), ..CreateUserRequest::default() }.encode_to_vec();
    plain.call("/tidings.user.v1.UserService/CreateUser", &[], &create).await.unwrap();
    let postgres = testing::shared().await.postgres();
    let mut connection = PgConnection::connect(&postgres.url(service.database())).await.unwrap();

    // No service makes a row like this: somebody did so by hand.
    let grow = "UPDATE user_account SET bio = repeat('x', 4 << 20), version = version + 1";
    sqlx::raw_sql(grow).execute(&mut connection).await.unwrap();
    let strong = GetUserRequest { id: "ada".to_owned(), consistency: Consistency::Strong.into(), ..Default::default() };
    let told = plain.call(GET_USER, &[], &strong.encode_to_vec()).await;

    assert_eq!(refusal(told), (Code::ResourceExhausted, "MESSAGE_TOO_LARGE".to_owned()));
    plain.call(HEALTH, &[], &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_in_flight_are_limited_over_all_connections_and_what_is_more_is_shed() {
    let service = Service::start("user", &["--max-in-flight", "2"]).await;
    let (first, second, third) =
        tokio::join!(Plain::connect(service.address), Plain::connect(service.address), Plain::connect(service.address));
    let one = first.open(GET_USER, &[]).await;
    let two = second.open(GET_USER, &[]).await;
    // An answer on the same connection says that what was before it has been read.
    first.call(HEALTH, &[], &[]).await.unwrap();
    second.call(HEALTH, &[], &[]).await.unwrap();

    let start = Instant::now();
    let shed = third.call(GET_USER, &[], &get_user("ada")).await.unwrap_err();

    assert!(start.elapsed() < Duration::from_secs(2), "it was queued for {:?}", start.elapsed());
    assert_eq!((shed.code, shed.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(shed.retry_after.is_some(), "{shed}");
    third.call(HEALTH, &[], &[]).await.unwrap();
    for freed in [one, two] {
        assert_eq!(refusal(freed.finish(&get_user("ada")).await).0, Code::NotFound);
        assert_eq!(refusal(third.call(GET_USER, &[], &get_user("ada")).await).0, Code::NotFound);
    }
}
