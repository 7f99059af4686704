//! What became of a call that did not end with OK.

use std::error::Error as _;
use std::io;
use std::time::{Duration, Instant};

use tidings_status::Failure;
use tonic::{Code, Request, Status};

use crate::address::Address;

/// Why a call was not answered with OK.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// Nobody listens there.
    #[error("{address}: connection refused; is it running? try: tidings up")]
    NotRunning {
        /// Where the service should be.
        address: String,
    },
    /// The connection could not be made, or was lost.
    #[error("{address}: {reason}")]
    Unreachable {
        /// Where the service should be.
        address: String,
        /// The last words of whatever failed.
        reason: String,
    },
    /// The service answered.
    #[error("{0}")]
    Answered(Box<Failure>),
}

impl Refusal {
    /// Reads a status that came from `address`, or from the attempt to get there.
    pub(crate) fn new(status: &Status, address: &Address) -> Self {
        let mut cause = status.source();
        let Some(mut last) = cause else {
            return Self::Answered(Box::new(Failure::from(status)));
        };
        while let Some(error) = cause {
            if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
                return Self::NotRunning { address: address.to_string() };
            }
            last = error;
            cause = error.source();
        }
        Self::Unreachable { address: address.to_string(), reason: last.to_string() }
    }
}

/// Sends `request` and waits at most `timeout` for the answer; the service is told how long it has.
///
/// # Errors
/// That of the service; DEADLINE_EXCEEDED if the time is up, whichever side found out first.
pub(crate) async fn within<T, R>(
    timeout: Duration,
    mut request: Request<T>,
    send: impl AsyncFnOnce(Request<T>) -> Result<R, Status>,
) -> Result<R, Status> {
    let late = || Status::deadline_exceeded(format!("no answer within {}", humantime::format_duration(timeout)));
    let begin = Instant::now();
    request.set_timeout(timeout);
    match tokio::time::timeout(timeout, send(request)).await {
        Err(_) => Err(late()),
        // tonic reads the timeout of its own request too, and calls its end CANCELLED.
        Ok(Err(status)) if status.code() == Code::Cancelled && begin.elapsed() >= timeout => Err(late()),
        Ok(answer) => answer,
    }
}
