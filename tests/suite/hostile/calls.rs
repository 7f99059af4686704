//! Calls above the limit of a connection, and calls that panic: other calls are not affected.

#[cfg(feature = "failpoints")]
use std::time::Duration;

use futures_util::future::join_all;
#[cfg(feature = "failpoints")]
use tidings_proto::METHODS;
use tidings_status::Failure;
use tonic::Code;

use super::frames::{GET_USER, flag, get_user, kind, open, streams};
use super::grpc_client::GrpcClient;
use super::raw_connection::RawConnection;
use crate::service::TestService;

/// Default limit of concurrent streams per connection.
const MAX_STREAMS: usize = 256;

/// Returns code and reason of a failed call.
pub(crate) fn refusal(result: Result<(), Failure>) -> (Code, String) {
    let failure = result.unwrap_err();
    (failure.code, failure.reason)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_has_at_most_256_concurrent_calls() {
    let service = TestService::start("user", &[]).await;
    let mut connection = RawConnection::connect(service.address).await;
    for stream in streams().take(MAX_STREAMS + 3) {
        connection.send(&open(stream, GET_USER)).await.unwrap();
    }

    let mut refused = Vec::new();
    while refused.len() < 3 {
        refused.push(connection.wait_for_frame(kind::RST_STREAM, flag::NONE).await.unwrap().stream);
    }

    assert_eq!(refused, streams().skip(MAX_STREAMS).take(3).collect::<Vec<_>>());
    let others = join_all((0..10).map(|_| GrpcClient::connect(service.address))).await;
    for other in others {
        assert_eq!(refusal(other.call(GET_USER, &[], &get_user("ada")).await).0, Code::NotFound);
    }
}

/// Returns the paths of all methods of a service.
#[cfg(feature = "failpoints")]
fn paths(service: &str) -> Vec<String> {
    METHODS.iter().filter(|method| method.service() == service).map(|method| format!("/{}", method.name)).collect()
}

/// The failure has the request id; other calls and the process go on.
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_any_handler_is_an_internal_error_of_one_call() {
    for name in ["user", "history", "lock", "broadcast"] {
        let paths = paths(name);
        assert!(!paths.is_empty());
        let points = paths.iter().map(|path| format!("{path}=1*panic->off")).collect::<Vec<_>>().join(";");
        let mut service = TestService::start_with_env(name, &[], &[("FAILPOINTS", &points)]).await;
        let client = GrpcClient::connect(service.address).await;

        for path in &paths {
            let id = format!("panic-in-{}", path.rsplit('/').next().unwrap());
            let failure = client.call(path, &[("x-request-id", &id)], &[]).await.unwrap_err();
            assert_eq!((failure.code, failure.reason.as_str()), (Code::Internal, "INTERNAL"), "{path}");
            assert_eq!(failure.message, "internal error", "{path}");
            assert_eq!(failure.request_id.as_deref(), Some(id.as_str()), "{path}");
        }

        // Each fail-point is off now: the same connection gets an error about the empty request.
        for path in &paths {
            let result = client.call(path, &[], &[]).await;
            if path.ends_with("/ListUsers") {
                result.unwrap(); // an empty request is valid: the first page of all users
            } else {
                assert_eq!(refusal(result).0, Code::InvalidArgument, "{path}");
            }
        }
        let panics = service.metric("tidings_server_panics_total").await;
        assert_eq!(panics.to_string(), paths.len().to_string(), "{name}");
        assert!(service.wait_for_exit(Duration::ZERO).await.is_none(), "{name} has exited");
    }
}

/// The panic is in the task that fills the cache for a call.
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_task_of_a_call_is_an_internal_error() {
    let service = TestService::start_with_env("user", &[], &[("FAILPOINTS", "user::before_fill=3*panic->off")]).await;
    let client = GrpcClient::connect(service.address).await;

    for n in 0..3 {
        let result = client.call(GET_USER, &[], &get_user(&format!("panic-{n}"))).await;
        assert_eq!(refusal(result), (Code::Internal, "INTERNAL".to_owned()));
    }

    let result = client.call(GET_USER, &[], &get_user("ada")).await;
    assert_eq!(refusal(result), (Code::NotFound, "USER_NOT_FOUND".to_owned()));
    assert_eq!(service.log().matches("user::before_fill").count(), 3, "{}", service.log());
}
