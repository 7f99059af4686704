//! A bug in one call is the end of that call only.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt as _;
use http::Response;
use metrics::counter;
use tonic::Status;
use tonic::body::Body;

use crate::Reason;

/// The service panicked; what it said is in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panicked;

impl Panicked {
    fn count() -> Self {
        counter!("tidings_server_panics_total").increment(1);
        Self
    }

    /// What the caller hears.
    pub(super) fn status(path: &str) -> Status {
        Reason::Internal.reply(path, "internal error").into_status()
    }
}

/// The answer of a service that may panic. Whatever it shares with other calls is behind locks that poison, or in Postgres
/// and Redis: nothing is left half changed here.
///
/// Tests make it panic by a fail-point of the method's name.
pub(super) async fn caught(
    path: &str,
    answering: impl Future<Output = Result<Response<Body>, Infallible>>,
) -> Result<Response<Body>, Panicked> {
    let answering = async {
        fail::fail_point!(path);
        answering.await
    };
    match AssertUnwindSafe(answering).catch_unwind().await {
        Ok(Ok(answer)) => Ok(answer),
        Err(_) => {
            tracing::error!(path, "the handler panicked");
            Err(Panicked::count())
        }
    }
}

/// The same for one step of a body.
pub(super) fn caught_in<T>(step: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(step)).map_err(|_| Panicked::count())
}
