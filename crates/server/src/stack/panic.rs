//! Confines a panic to the call in which it happens.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt as _;
use http::Response;
use metrics::counter;
use tonic::Status;
use tonic::body::Body;

use crate::reason::Reason;

/// The service panicked. The panic message is in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandlerPanicked;

impl HandlerPanicked {
    fn count() -> Self {
        counter!("tidings_server_panics_total").increment(1);
        Self
    }

    /// Returns the status for the caller.
    pub(super) fn status(path: &str) -> Status {
        Reason::Internal.reply(path, "internal error").into_status()
    }
}

/// Awaits the response of a service that may panic.
///
/// Unwinding is safe here. State that calls share is in Postgres, in Redis, or behind locks, and
/// locked state is never left half-changed between two statements that may panic. These locks are
/// therefore locks of `parking_lot`: the next caller gets them after a panic, too.
///
/// Tests trigger a panic through a fail-point with the name of the method.
pub(super) async fn catch(
    path: &str,
    response: impl Future<Output = Result<Response<Body>, Infallible>>,
) -> Result<Response<Body>, HandlerPanicked> {
    let response = async {
        fail::fail_point!(path);
        response.await
    };
    match AssertUnwindSafe(response).catch_unwind().await {
        Ok(Ok(response)) => Ok(response),
        Err(_) => {
            tracing::error!(path, "handler panicked");
            Err(HandlerPanicked::count())
        }
    }
}

/// Runs one step of a response body that may panic.
pub(super) fn catch_step<T>(step: impl FnOnce() -> T) -> Result<T, HandlerPanicked> {
    catch_unwind(AssertUnwindSafe(step)).map_err(|_| HandlerPanicked::count())
}
