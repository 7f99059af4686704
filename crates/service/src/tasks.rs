//! Everything that a service runs: its server, a start-up step and background tasks, which end in
//! order.

use std::fmt;
use std::future::pending;

use futures_util::future::BoxFuture;
use tidings_server::Server;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::ServeError;

/// The work that a service does besides serving calls: a start-up step, and background tasks that
/// end with the service.
pub struct Tasks {
    shutdown: CancellationToken,
    stop: CancellationToken,
    startup: Option<BoxFuture<'static, Result<(), ServeError>>>,
    started: CancellationToken,
    running: Vec<(&'static str, JoinHandle<()>)>,
}

impl Tasks {
    /// Creates an empty set for a service that ends when `shutdown` is cancelled.
    pub fn new(shutdown: CancellationToken) -> Self {
        let (stop, started) = (CancellationToken::new(), CancellationToken::new());
        Self { shutdown, stop, startup: None, started, running: Vec::new() }
    }

    /// Sets the start-up step, which must finish before the service is ready and its tasks start.
    /// Calls are served meanwhile only if the step reports that it has to wait. If the step fails,
    /// the service ends.
    pub fn begin(&mut self, work: impl Future<Output = Result<(), ServeError>> + Send + 'static) {
        self.startup = Some(Box::pin(work));
    }

    /// Starts a task that runs until its token is cancelled. A panic in it ends the service: its
    /// orchestrator restarts the service, so that the work of the task continues.
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(CancellationToken) -> F,
    ) {
        let shutdown_guard = self.shutdown.clone().drop_guard();
        let (stop, started) = (self.stop.clone(), self.started.clone());
        let work = work(stop.clone());
        let task = tokio::spawn(async move {
            let _shutdown_guard = shutdown_guard;
            if stop.run_until_cancelled(started.cancelled()).await.is_some() {
                work.await;
            }
        });
        self.running.push((name, task));
    }

    /// Serves until shutdown, then stops the tasks and waits for them.
    ///
    /// # Errors
    /// [`ServeError::Server`], [`ServeError::Task`], or the error of the start-up step.
    pub async fn serve(mut self, server: Server, listener: TcpListener) -> Result<(), ServeError> {
        let (startup, started) = (self.startup.take(), self.started.clone());
        let startup_failed = async move {
            if let Some(startup) = startup
                && let Err(error) = startup.await
            {
                return error;
            }
            started.cancel();
            pending().await
        };
        let ended = tokio::select! {
            ended = server.serve(listener, self.shutdown.clone()) => ended.map(drop).map_err(ServeError::from),
            error = startup_failed => Err(error),
        };
        self.stop.cancel();
        let mut tasks = Ok(());
        for (name, task) in self.running.drain(..) {
            tasks = tasks.and(task.await.map_err(|error| ServeError::Task(name, error)));
        }
        ended?;
        tasks
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("running", &self.running).finish_non_exhaustive()
    }
}

impl Drop for Tasks {
    /// Stops the tasks of a service that is dropped before its end.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
