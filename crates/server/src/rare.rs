//! What hardly ever happens, waited for beside what happens all the time.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;

/// A future that is polled only when something has woken it, however often its task runs for other reasons.
///
/// To poll a timer or a cancellation takes a lock, which all streams of a connection share; a stream would do so several
/// times for each of its frames.
pub(crate) struct Rare<T> {
    future: BoxFuture<'static, T>,
    alarm: Arc<Alarm>,
}

/// Its waker: remembers that the future has to be polled, and wakes the task.
struct Alarm {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<T> Rare<T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        let alarm = Alarm { rung: AtomicBool::new(true), task: AtomicWaker::new() };
        Self { future: Box::pin(future), alarm: Arc::new(alarm) }
    }
}

impl<T> Future for Rare<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.alarm.task.register(cx.waker()); // before the look: what rings after that wakes the task
        if !self.alarm.rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        self.alarm.rung.store(false, Ordering::Release); // before the poll: what rings from now on is for the next
        let waker = Waker::from(Arc::clone(&self.alarm));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

impl<T> fmt::Debug for Rare<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rare")
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
    async fn it_is_polled_once_for_each_time_that_it_is_woken() {
        let (polls, bell) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (counted, rung) = (Arc::clone(&polls), Arc::clone(&bell));
        let mut two = Box::pin(async move {
            rung.notified().await;
            rung.notified().await;
        });
        let mut rare = Rare::new(poll_fn(move |cx| {
            counted.fetch_add(1, Ordering::Relaxed);
            two.as_mut().poll(cx)
        }));

        for rings in 1..=2 {
            for _ in 0..10 {
                assert!(poll!(&mut rare).is_pending());
            }
            assert_eq!(polls.load(Ordering::Relaxed), rings);
            bell.notify_one();
        }
        assert!(poll!(&mut rare).is_ready());
        assert_eq!(polls.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_up_is_lost_whichever_task_waits_and_whenever_it_comes() {
        for _ in 0..1_000 {
            let bell = Arc::new(Notify::new());
            let rung = Arc::clone(&bell);
            let mut rare = Rare::new(async move { rung.notified().await });
            let _another_task_waited_before = poll!(&mut rare);
            let waiting = tokio::spawn(rare);
            bell.notify_one();
            timeout(Duration::from_mins(1), waiting).await.unwrap().unwrap();
        }
    }
}
