//! One call too many, and one that panics: the others go on.

#[cfg(feature = "failpoints")]
use std::time::Duration;

use futures_util::future::join_all;
#[cfg(feature = "failpoints")]
use tidings_proto::METHODS;
use tidings_status::Failure;
use tonic::Code;

use super::frames::{GET_USER, flag, get_user, kind, open, streams};
use super::plain::Plain;
use super::raw::Raw;
use crate::service::Service;

/// What one connection may have under way, unless it is told otherwise.
const STREAMS: usize = 256;

/// The code and the reason of a refusal.
pub(crate) fn refusal(answer: Result<(), Failure>) -> (Code, String) {
    let failure = answer.unwrap_err();
    (failure.code, failure.reason)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_has_256_calls_at_a_time() {
    let service = Service::start("user", &[]).await;
    let mut raw = Raw::connect(service.address).await;
    for stream in streams().take(STREAMS + 3) {
        raw.send(&open(stream, GET_USER)).await.unwrap();
    }

    let mut refused = Vec::new();
    while refused.len() < 3 {
        refused.push(raw.find(kind::RST_STREAM, flag::NONE).await.unwrap().stream);
    }

    assert_eq!(refused, streams().skip(STREAMS).take(3).collect::<Vec<_>>());
    let others = join_all((0..10).map(|_| Plain::connect(service.address))).await;
    for other in others {
        assert_eq!(refusal(other.call(GET_USER, &[], &get_user("ada")).await).0, Code::NotFound);
    }
}

/// Each method by the path of its calls, of one service.
#[cfg(feature = "failpoints")]
fn paths(service: &str) -> Vec<String> {
    METHODS.iter().filter(|method| method.service() == service).map(|method| format!("/{}", method.name)).collect()
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_any_handler_is_an_internal_error_with_its_request_id_and_the_process_lives() {
    for name in ["user", "history", "lock", "broadcast"] {
        let paths = paths(name);
        assert!(!paths.is_empty());
        let points = paths.iter().map(|path| format!("{path}=1*panic->off")).collect::<Vec<_>>().join(";");
        let mut service = Service::with(name, &[], &[("FAILPOINTS", &points)]).await;
        let plain = Plain::connect(service.address).await;

        for path in &paths {
            let id = format!("panic-in-{}", path.rsplit('/').next().unwrap());
            let failure = plain.call(path, &[("x-request-id", &id)], &[]).await.unwrap_err();
            assert_eq!((failure.code, failure.reason.as_str()), (Code::Internal, "INTERNAL"), "{path}");
            assert_eq!(failure.message, "internal error", "{path}");
            assert_eq!(failure.request_id.as_deref(), Some(id.as_str()), "{path}");
        }

        // Now that the points are off, each says what is wrong with a request that says nothing, on the same connection.
        for path in &paths {
            let told = plain.call(path, &[], &[]).await;
            if path.ends_with("/ListUsers") {
                told.unwrap(); // a request that says nothing is one for the first page of all
            } else {
                assert_eq!(refusal(told).0, Code::InvalidArgument, "{path}");
            }
        }
        let panics = service.metric("tidings_server_panics_total").await;
        assert_eq!(panics.to_string(), paths.len().to_string(), "{name}");
        assert!(service.ended(Duration::ZERO).await.is_none(), "{name} has ended");
    }
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_panics_beside_its_call_is_an_internal_error_and_the_process_lives() {
    let service = Service::with("user", &[], &[("FAILPOINTS", "user::before_fill=3*panic->off")]).await;
    let plain = Plain::connect(service.address).await;

    for n in 0..3 {
        let told = plain.call(GET_USER, &[], &get_user(&format!("panic-{n}"))).await;
        assert_eq!(refusal(told), (Code::Internal, "INTERNAL".to_owned()));
    }

    let told = plain.call(GET_USER, &[], &get_user("ada")).await;
    assert_eq!(refusal(told), (Code::NotFound, "USER_NOT_FOUND".to_owned()));
    assert_eq!(service.log().matches("user::before_fill").count(), 3, "{}", service.log());
}
