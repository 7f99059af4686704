//! A wrapper for futures that seldom become ready, but whose task is polled often.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;

/// A future that is polled only after its own waker was called, however often its task runs.
///
/// Polling a timer or a cancellation takes a lock that all streams of a connection share. A stream
/// would take it several times for each of its frames.
pub(crate) struct PollWhenWoken<T> {
    future: BoxFuture<'static, T>,
    flag: Arc<WakeFlag>,
}

/// The waker of the inner future: sets the flag that it must be polled, and wakes the task.
struct WakeFlag {
    woken: AtomicBool,
    task: AtomicWaker,
}

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<T> PollWhenWoken<T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        let flag = WakeFlag { woken: AtomicBool::new(true), task: AtomicWaker::new() };
        Self { future: Box::pin(future), flag: Arc::new(flag) }
    }
}

impl<T> Future for PollWhenWoken<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.flag.task.register(cx.waker()); // before the load: a later wake-up wakes the task
        if !self.flag.woken.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        self.flag.woken.store(false, Ordering::Release); // before the poll: a wake-up during it counts for the next
        let waker = Waker::from(Arc::clone(&self.flag));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

impl<T> fmt::Debug for PollWhenWoken<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PollWhenWoken")
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use futures_util::poll;
    use tokio::sync::Notify;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn the_future_is_polled_once_per_wake_up() {
        let (polls, notify) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (counted, notified) = (Arc::clone(&polls), Arc::clone(&notify));
        let mut twice = Box::pin(async move {
            notified.notified().await;
            notified.notified().await;
        });
        let mut guarded = PollWhenWoken::new(poll_fn(move |cx| {
            counted.fetch_add(1, Ordering::Relaxed);
            twice.as_mut().poll(cx)
        }));

        for wake_ups in 1..=2 {
            for _ in 0..10 {
                assert!(poll!(&mut guarded).is_pending());
            }
            assert_eq!(polls.load(Ordering::Relaxed), wake_ups);
            notify.notify_one();
        }
        assert!(poll!(&mut guarded).is_ready());
        assert_eq!(polls.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_up_is_lost_when_the_future_changes_tasks() {
        for _ in 0..1_000 {
            let notify = Arc::new(Notify::new());
            let notified = Arc::clone(&notify);
            let mut guarded = PollWhenWoken::new(async move { notified.notified().await });
            let _polled_by_another_task_before = poll!(&mut guarded);
            let waiting = tokio::spawn(guarded);
            notify.notify_one();
            timeout(Duration::from_mins(1), waiting).await.unwrap().unwrap();
        }
    }
}
