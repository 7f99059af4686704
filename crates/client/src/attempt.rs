//! One attempt of a call: how long it may take, and what its failure means.

use std::time::Duration;

use tidings_status::Failure;
use tokio::time::{Instant, timeout};
use tonic::{Code, Status};

/// Waits at most `limit` for an answer. The request says the same by `set_timeout`, so that the service knows.
///
/// # Errors
/// That of the service; DEADLINE_EXCEEDED if the time is up, whichever side found out first.
pub async fn within<R>(limit: Duration, answer: impl Future<Output = Result<R, Status>>) -> Result<R, Status> {
    let late = || Status::deadline_exceeded(format!("no answer within {}", humantime::format_duration(limit)));
    let begin = Instant::now();
    match timeout(limit, answer).await {
        Err(_) => Err(late()),
        // tonic reads the timeout of its own request too, and calls its end CANCELLED.
        Ok(Err(status)) if status.code() == Code::Cancelled && begin.elapsed() >= limit => Err(late()),
        Ok(answer) => answer,
    }
}

/// Says whether the same call may fare better later: the service is busy or away, or it was not the service that spoke.
pub(crate) fn worth_repeating(failure: &Failure) -> bool {
    match failure.code {
        Code::Unavailable | Code::DeadlineExceeded => true,
        // What is too large once is always too large.
        Code::ResourceExhausted => failure.reason != "MESSAGE_TOO_LARGE",
        // Without a reason of ours it is the transport that speaks: a connection that was cut, a stream that was reset.
        Code::Unknown | Code::Internal | Code::Cancelled => failure.reason.is_empty(),
        _ => false,
    }
}

/// Says whether it is this instance that is out, and not what all of them need: it did not speak at all, or said that it
/// shuts down.
pub(crate) fn instance_is_out(failure: &Failure) -> bool {
    worth_repeating(failure) && (failure.reason.is_empty() || failure.reason == "DRAINING")
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
    fn what_passes_is_worth_a_repeat_and_what_was_decided_is_not() {
        for code in [Code::Unavailable, Code::ResourceExhausted, Code::DeadlineExceeded] {
            assert!(worth_repeating(&failure(code, "STORE_AWAY")), "{code}");
        }
        for code in [Code::InvalidArgument, Code::NotFound, Code::Aborted, Code::Internal, Code::Unknown] {
            assert!(!worth_repeating(&failure(code, "SOME_REASON")), "{code}");
        }
        assert!(!worth_repeating(&failure(Code::ResourceExhausted, "MESSAGE_TOO_LARGE")));
    }

    #[test]
    fn what_only_the_transport_said_is_worth_a_repeat() {
        for status in [Status::unknown("transport error"), Status::internal("reset"), Status::cancelled("reset")] {
            assert!(worth_repeating(&Failure::from(&status)), "{status}");
        }
    }

    #[test]
    fn an_instance_is_out_if_it_is_silent_or_leaves_but_not_if_its_store_is_away() {
        assert!(instance_is_out(&Failure::from(&Status::unavailable("connection refused"))));
        assert!(instance_is_out(&failure(Code::Unavailable, "DRAINING")));
        assert!(!instance_is_out(&failure(Code::Unavailable, "STORE_AWAY")));
        assert!(!instance_is_out(&failure(Code::ResourceExhausted, "OVERLOADED")));
        assert!(!instance_is_out(&Failure::from(&Status::not_found("no such method here"))));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_is_up_whichever_side_finds_out_first() {
        let limit = Duration::from_secs(1);
        let cancelled = async {
            tokio::time::sleep(limit).await;
            Err::<(), _>(Status::cancelled("Timeout expired"))
        };

        for status in
            [within(limit, pending::<Result<(), _>>()).await.unwrap_err(), within(limit, cancelled).await.unwrap_err()]
        {
            assert_eq!((status.code(), status.message()), (Code::DeadlineExceeded, "no answer within 1s"));
        }
    }
}
