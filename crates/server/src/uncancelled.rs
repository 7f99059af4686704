//! Work that runs to its end although its caller leaves.

use tokio_util::task::TaskTracker;

/// Runs work that must not stop halfway. A client that disconnects cancels its call, but not the
/// work that the call awaits here. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct UncancelledWork {
    tasks: TaskTracker,
}

/// Error of work whose result is lost: it panicked, or the process ends. It may have been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted;

impl UncancelledWork {
    /// Runs work in a task of its own and returns its result. If the returned future is dropped,
    /// the work continues.
    ///
    /// # Errors
    /// The error of the work, or [`Aborted`].
    pub async fn run<T, E>(&self, work: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Aborted> + Send + 'static,
    {
        self.tasks.spawn(work).await.unwrap_or_else(|_| Err(Aborted.into()))
    }

    /// Starts work that no caller awaits.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    /// Waits until all work has ended. For the end of a service, when no call starts any more.
    pub async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_continues_after_its_caller_has_left() {
        let work = UncancelledWork::default();
        let (go, gone) = oneshot::channel::<()>();
        let (done, is_done) = oneshot::channel();
        let call = work.run(async move {
            let _ = gone.await;
            done.send(()).map_err(|()| Aborted)
        });

        assert_eq!(call.now_or_never(), None, "the call was dropped while its work was in progress");
        go.send(()).unwrap();

        work.finish().await;
        assert_eq!(is_done.await, Ok(()));
    }

    #[tokio::test]
    async fn work_in_progress_delays_the_finish() {
        let work = UncancelledWork::default();
        work.spawn(pending());

        assert_eq!(work.finish().now_or_never(), None);
    }

    #[tokio::test]
    async fn a_panic_aborts_only_its_own_call() {
        let work = UncancelledWork::default();

        let panicked: Result<(), Aborted> = work.run(async { panic!("as the test wants") }).await;
        assert_eq!(panicked, Err(Aborted));
        assert_eq!(work.run(async { Ok::<_, Aborted>(1) }).await, Ok(1));
    }
}
