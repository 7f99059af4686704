//! One attempt of a call: its timeout, and the classification of its failure.

use std::time::Duration;

use tidings_proto::lock::ErrorReason; // every contract has the reasons that matter here
use tidings_status::Failure;
use tokio::time::{Instant, timeout};
use tonic::{Code, Status};

/// Waits at most `limit` for a response.
///
/// The caller also sets `limit` as the timeout of the request, so that the service can stop in
/// time.
///
/// # Errors
/// The status of the service. DEADLINE_EXCEEDED after `limit`, also if the transport noticed first.
pub async fn with_timeout<R>(limit: Duration, response: impl Future<Output = Result<R, Status>>) -> Result<R, Status> {
    let late = || Status::deadline_exceeded(format!("no response within {}", humantime::format_duration(limit)));
    let begin = Instant::now();
    match timeout(limit, response).await {
        Err(_) => Err(late()),
        // tonic enforces the timeout of its request as well, and reports CANCELLED.
        Ok(Err(status)) if status.code() == Code::Cancelled && begin.elapsed() >= limit => Err(late()),
        Ok(response) => response,
    }
}

/// Returns true if a retry may succeed.
///
/// It may if the service is busy or unavailable, or if the failure comes from the transport.
pub(crate) fn is_retryable(failure: &Failure) -> bool {
    match failure.code {
        Code::Unavailable | Code::DeadlineExceeded => true,
        // A message that is too large stays too large.
        Code::ResourceExhausted => failure.reason != ErrorReason::MessageTooLarge.text(),
        // Our services always set a reason; without one the transport failed (cut, reset).
        Code::Unknown | Code::Internal | Code::Cancelled => failure.reason.is_empty(),
        _ => false,
    }
}

/// Returns true if this instance failed, and not a store that all instances share.
///
/// An instance failed if it did not respond, or responded that it is shutting down.
pub(crate) fn is_instance_failure(failure: &Failure) -> bool {
    let only_connection_ends = failure.metadata.get("cause").is_some_and(|cause| cause == "connection_age");
    let drains = failure.reason == ErrorReason::Draining.text() && !only_connection_ends;
    is_retryable(failure) && (failure.reason.is_empty() || drains)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tidings_status::Reply;

    use super::*;

    fn failure(code: Code, reason: &'static str) -> Failure {
        Failure::from(&Reply::new(code, "test.tidings", reason, "test").into_status())
    }

    #[test]
    fn transient_failures_are_retryable_and_refusals_are_not() {
        for code in [Code::Unavailable, Code::ResourceExhausted, Code::DeadlineExceeded] {
            assert!(is_retryable(&failure(code, "STORE_AWAY")), "{code}");
        }
        for code in [Code::InvalidArgument, Code::NotFound, Code::Aborted, Code::Internal, Code::Unknown] {
            assert!(!is_retryable(&failure(code, "SOME_REASON")), "{code}");
        }
        assert!(!is_retryable(&failure(Code::ResourceExhausted, "MESSAGE_TOO_LARGE")));
    }

    #[test]
    fn failures_of_the_transport_are_retryable() {
        for status in [Status::unknown("transport error"), Status::internal("reset"), Status::cancelled("reset")] {
            assert!(is_retryable(&Failure::from(&status)), "{status}");
        }
    }

    /// A failed store or an overload is no reason to avoid the instance.
    #[test]
    fn an_instance_fails_if_it_is_unreachable_or_drains() {
        assert!(is_instance_failure(&Failure::from(&Status::unavailable("connection refused"))));
        assert!(is_instance_failure(&failure(Code::Unavailable, "DRAINING")));
        let aged = Reply::new(Code::Unavailable, "test.tidings", "DRAINING", "test").with("cause", &"connection_age");
        assert!(!is_instance_failure(&Failure::from(&aged.into_status())));
        assert!(!is_instance_failure(&failure(Code::Unavailable, "STORE_AWAY")));
        assert!(!is_instance_failure(&failure(Code::ResourceExhausted, "OVERLOADED")));
        assert!(!is_instance_failure(&Failure::from(&Status::not_found("no such method here"))));
    }

    /// The client's timer and tonic's may fire in either order; the error is the same.
    #[tokio::test(start_paused = true)]
    async fn either_side_may_notice_the_timeout_first() {
        let limit = Duration::from_secs(1);
        let cancelled = async {
            tokio::time::sleep(limit).await;
            Err::<(), _>(Status::cancelled("Timeout expired"))
        };

        for status in [
            with_timeout(limit, pending::<Result<(), _>>()).await.unwrap_err(),
            with_timeout(limit, cancelled).await.unwrap_err(),
        ] {
            assert_eq!((status.code(), status.message()), (Code::DeadlineExceeded, "no response within 1s"));
        }
    }
}
