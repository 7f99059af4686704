//! The life of a service: its schema is right, its stores are there, its tasks run; then it serves; then all of it ends in
//! order.

use std::fmt;
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use futures_util::future::BoxFuture;
use tidings_redis::{Redis, Role};
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::security::Wrong;
use crate::{Args, Error, Server};

/// Why a service could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A setting is wrong.
    #[error(transparent)]
    Setting(#[from] Wrong),
    /// The address can not be bound.
    #[error("can not listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    /// The schema is not as it should be.
    #[error(transparent)]
    Migrate(#[from] tidings_postgres::MigrateError),
    /// Postgres can not be used.
    #[error(transparent)]
    Postgres(#[from] tidings_postgres::StartError),
    /// The URL of Redis can not be used.
    #[error("can not use redis")]
    Redis(#[source] tidings_redis::OpenError),
    /// There is a Redis, and it must not be used.
    #[error("can not use this redis")]
    Unfit(#[source] tidings_redis::Unfit),
    /// A task ended unasked.
    #[error("{0} ended")]
    Task(&'static str, #[source] JoinError),
    /// The process can not be told to stop.
    #[error("can not listen for signals")]
    Signal(#[source] io::Error),
    /// The server did not start.
    #[error("can not serve")]
    Server(#[from] Error),
}

/// How far the port for metrics and probes is above that for calls, unless it is set.
const ADMIN: u16 = 2000;

/// Binds the address of a service, once the settings of its server are found right; the address for metrics and probes is
/// set if it was not.
///
/// # Errors
/// [`ServeError::Setting`] or [`ServeError::Listen`].
pub async fn listen(address: SocketAddr, args: &mut Args) -> Result<TcpListener, ServeError> {
    args.security.validate(address)?;
    if args.admin_listen == Some(address) && address.port() != 0 {
        let problem = format!("'{address}': expected another address than that of --listen (TIDINGS_LISTEN)");
        return Err(Wrong::new("--admin-listen", "TIDINGS_ADMIN_LISTEN", problem).into());
    }
    if args.admin_listen.is_none() && address.port() != 0 {
        let port = address.port().checked_add(ADMIN);
        args.admin_listen = port.map(|port| (Ipv4Addr::LOCALHOST, port).into());
    }
    TcpListener::bind(address).await.map_err(|error| ServeError::Listen(address, error))
}

/// Begins to connect to the Redis of a service, whose name follows the prefix in every key. One that is away is no obstacle.
///
/// # Errors
/// [`ServeError::Redis`]; [`ServeError::Unfit`] if there is one that must not be used for this.
pub async fn open_redis(args: &tidings_redis::Args, service: &str, role: Role) -> Result<Redis, ServeError> {
    let redis = Redis::open(args, service, role).map_err(ServeError::Redis)?;
    redis.fit().await.map_err(ServeError::Unfit)?;
    Ok(redis)
}

/// What a service does besides answering: what has to be done before, and what runs without being called and ends with it.
pub struct Tasks {
    shutdown: CancellationToken,
    stop: CancellationToken,
    beginning: Option<BoxFuture<'static, Result<(), ServeError>>>,
    begun: CancellationToken,
    running: Vec<(&'static str, JoinHandle<()>)>,
}

impl Tasks {
    /// No tasks yet, of a service that ends when `shutdown` is cancelled.
    pub fn new(shutdown: CancellationToken) -> Self {
        let (stop, begun) = (CancellationToken::new(), CancellationToken::new());
        Self { shutdown, stop, beginning: None, begun, running: Vec::new() }
    }

    /// What has to be done before the service is ready and its tasks begin. Calls are served meanwhile, once it has said that
    /// it has to wait; if it fails the service ends at once.
    pub fn begin(&mut self, work: impl Future<Output = Result<(), ServeError>> + Send + 'static) {
        self.beginning = Some(Box::pin(work));
    }

    /// Starts a task that works until its token is cancelled. One that panics ends the service, which is started again:
    /// without it nothing would do its work.
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(CancellationToken) -> F,
    ) {
        let end_with_task = self.shutdown.clone().drop_guard();
        let (stop, begun) = (self.stop.clone(), self.begun.clone());
        let work = work(stop.clone());
        let task = tokio::spawn(async move {
            let _end_with_task = end_with_task;
            if stop.run_until_cancelled(begun.cancelled()).await.is_some() {
                work.await;
            }
        });
        self.running.push((name, task));
    }

    /// Serves until the service is to end; then ends the tasks, and waits for them.
    ///
    /// # Errors
    /// [`ServeError::Server`], [`ServeError::Task`], or why it could not begin.
    pub async fn serve(mut self, server: Server, listener: TcpListener) -> Result<(), ServeError> {
        let (beginning, begun) = (self.beginning.take(), self.begun.clone());
        let refused = async move {
            if let Some(beginning) = beginning
                && let Err(refusal) = beginning.await
            {
                return refusal;
            }
            begun.cancel();
            pending().await
        };
        let ended = tokio::select! {
            ended = server.serve(listener, self.shutdown.clone()) => ended.map(drop).map_err(ServeError::from),
            refusal = refused => Err(refusal),
        };
        self.stop.cancel();
        let mut all = Ok(());
        for (name, task) in self.running.drain(..) {
            all = all.and(task.await.map_err(|error| ServeError::Task(name, error)));
        }
        ended?;
        all
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("running", &self.running).finish_non_exhaustive()
    }
}

impl Drop for Tasks {
    /// A service that is dropped in the middle takes its tasks with it.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
