//! Resets a call whose client does not receive the response in time, so that unread responses do
//! not fill the memory of the process.
//!
//! Nothing else ends such a call. Its deadline no longer counts once the response is ready, and its
//! connection is alive: the client answers every PING but grants no flow-control window.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

tokio::task_local! {
    /// Set when the response of this task's call is ready and only has to be sent.
    static RESPONSE_READY: Cell<bool>;
}

/// Marks the response to this call as ready to be sent. Not for streams, which clients may read as
/// slowly as they like.
pub(crate) fn response_ready() {
    // The flag is absent in calls without a connection.
    let _ = RESPONSE_READY.try_with(|ready| ready.set(true));
}

/// Runs a call until its response is sent. Drops the call, which resets its stream, if the client
/// has not received the response within `limit`.
pub(crate) fn with_send_timeout<F: Future>(limit: Duration, call: F) -> impl Future<Output = ()> {
    RESPONSE_READY.scope(Cell::new(false), WithSendTimeout { call, limit, timer: None })
}

pin_project! {
    /// A call with a timeout for sending its response. Not an `async` block, which would have room
    /// for the call twice: the task of each call is moved and allocated.
    struct WithSendTimeout<F> {
        #[pin]
        call: F,
        limit: Duration,
        timer: Option<Pin<Box<Sleep>>>,
    }
}

impl<F: Future> Future for WithSendTimeout<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.call.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // Few calls reach this point with a ready response: the poll that makes it also sends all
        // that the window allows.
        if !RESPONSE_READY.with(Cell::get) {
            return Poll::Pending;
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(*this.limit)));
        timer
            .as_mut()
            .poll(cx)
            .map(|()| tracing::debug!("send timeout: the client did not receive the response in time"))
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::{Instant, timeout};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);
    const LONG: Duration = Duration::from_hours(1);

    #[tokio::test(start_paused = true)]
    async fn a_call_with_a_ready_response_ends_after_the_limit() {
        let start = Instant::now();

        with_send_timeout(LIMIT, async {
            sleep(LIMIT / 2).await;
            response_ready();
            pending::<()>().await;
        })
        .await;

        assert_eq!(start.elapsed(), LIMIT / 2 + LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_a_ready_response_has_no_limit() {
        timeout(LONG, with_send_timeout(LIMIT, pending::<()>())).await.unwrap_err();
    }
}
