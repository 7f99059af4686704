//! An answer that its client does not take is held for a while and then given up: nobody fills the memory of a process by
//! asking for much and reading nothing.
//!
//! Nothing else ends such a call. Its deadline is over when the answer is made, and its connection is alive: the client answers
//! every PING, it only gives no window.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

tokio::task_local! {
    /// Whether the call of this task has been answered, and its answer only has to be taken.
    static ANSWERED: Cell<bool>;
}

/// Says that the answer to this call is made. Not to be said of streams, which their clients may read as slowly as they like.
pub(crate) fn begins() {
    // Nobody listens where a call was not made over a connection.
    let _ = ANSWERED.try_with(|answered| answered.set(true));
}

/// Runs a call, with the sending of its answer, to its end; but drops it, and so resets its stream, if the answer has not been
/// taken within `limit`.
pub(crate) fn within<F: Future>(limit: Duration, call: F) -> impl Future<Output = ()> {
    ANSWERED.scope(Cell::new(false), Bounded { call, limit, overdue: None })
}

pin_project! {
    /// A call that is given up some time after it was answered. No `async` block, which would have room for the call twice: a
    /// task of each call is moved and allocated.
    struct Bounded<F> {
        #[pin]
        call: F,
        limit: Duration,
        overdue: Option<Pin<Box<Sleep>>>,
    }
}

impl<F: Future> Future for Bounded<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.call.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // Hardly any call comes here answered: what fits into the windows is sent by the poll that answered it.
        if !ANSWERED.with(Cell::get) {
            return Poll::Pending;
        }
        let timer = this.overdue.get_or_insert_with(|| Box::pin(sleep(*this.limit)));
        timer.as_mut().poll(cx).map(|()| tracing::debug!("an answer was not taken"))
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
    async fn what_was_answered_is_given_up_after_the_limit() {
        let start = Instant::now();

        within(LIMIT, async {
            sleep(LIMIT / 2).await;
            begins();
            pending::<()>().await;
        })
        .await;

        assert_eq!(start.elapsed(), LIMIT / 2 + LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_answered_is_not() {
        timeout(LONG, within(LIMIT, pending::<()>())).await.unwrap_err();
    }
}
