//! Resets a call whose client has stopped to receive the response, so that unread responses do not
//! fill the memory of the process.
//!
//! Nothing else ends such a call. Its deadline no longer counts once the response is ready, and its
//! connection is alive: the client answers every PING but grants no flow-control window. A client
//! that receives slowly is not reset: each chunk that it takes restarts the timeout.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use metrics::counter;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};

tokio::task_local! {
    /// Number of parts of the response that were handed to HTTP/2, once the response of this
    /// task's call is ready and only has to be sent; 0 before.
    static PARTS_SENT: Cell<u64>;
}

/// Marks the response to this call as ready to be sent, and then each of its chunks as sent. Not
/// for streams, which clients may read as slowly as they like.
pub(crate) fn part_sent() {
    // The counter is absent in calls without a connection.
    let _ = PARTS_SENT.try_with(|parts| parts.set(parts.get() + 1));
}

/// Runs a call until its response is sent. Drops the call, which resets its stream, if the client
/// has received no part of the response for `limit`.
pub(crate) fn with_send_timeout<F: Future>(limit: Duration, call: F) -> impl Future<Output = ()> {
    PARTS_SENT.scope(Cell::new(0), WithSendTimeout { call, limit, timer: None, parts_seen: 0 })
}

pin_project! {
    /// A call with a timeout for sending its response. Not an `async` block, which would have room
    /// for the call twice: the task of each call is moved and allocated.
    struct WithSendTimeout<F> {
        #[pin]
        call: F,
        limit: Duration,
        timer: Option<Pin<Box<Sleep>>>,
        // Number of parts that were sent when the timer was started.
        parts_seen: u64,
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
        let parts = PARTS_SENT.with(Cell::get);
        if parts == 0 {
            return Poll::Pending;
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(*this.limit)));
        if std::mem::replace(this.parts_seen, parts) != parts {
            timer.as_mut().reset(Instant::now() + *this.limit);
        }
        timer.as_mut().poll(cx).map(|()| {
            counter!("tidings_server_send_timeouts_total").increment(1);
            tracing::info!(limit = ?this.limit, "send timeout: call reset, its client has stopped to read the response");
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);
    const LONG: Duration = Duration::from_hours(1);

    #[tokio::test(start_paused = true)]
    async fn a_call_with_a_ready_response_ends_after_the_limit() {
        let start = Instant::now();

        with_send_timeout(LIMIT, async {
            sleep(LIMIT / 2).await;
            part_sent();
            pending::<()>().await;
        })
        .await;

        assert_eq!(start.elapsed(), LIMIT / 2 + LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_is_reset_only_after_it_has_stopped() {
        let start = Instant::now();

        with_send_timeout(LIMIT, async {
            for _ in 0..100 {
                part_sent();
                sleep(LIMIT / 2).await;
            }
            pending::<()>().await;
        })
        .await;

        assert_eq!(start.elapsed(), LIMIT / 2 * 99 + LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_a_ready_response_has_no_limit() {
        timeout(LONG, with_send_timeout(LIMIT, pending::<()>())).await.unwrap_err();
    }
}
