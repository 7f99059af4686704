//! The life of a service: its schema is right, its stores are there, its tasks run; then it serves; then all of it ends in
//! order.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tidings_postgres::{Migrations, Postgres};
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

/// Connects to the database of a service, whose schema is applied if `migrate` and must be up to date if not.
///
/// # Errors
/// [`ServeError::Migrate`] or [`ServeError::Postgres`].
pub async fn open_postgres(
    args: &tidings_postgres::Args,
    migrations: Migrations,
    migrate: bool,
    application: &str,
) -> Result<Postgres, ServeError> {
    if migrate {
        migrations.apply(args).await?;
    }
    migrations.check(args).await?;
    Ok(Postgres::connect(args, application).await?)
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

/// What runs without being called, and ends with the service.
#[derive(Debug)]
pub struct Tasks {
    shutdown: CancellationToken,
    stop: CancellationToken,
    running: Vec<(&'static str, JoinHandle<()>)>,
}

impl Tasks {
    /// No tasks yet, of a service that ends when `shutdown` is cancelled.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { shutdown, stop: CancellationToken::new(), running: Vec::new() }
    }

    /// Starts a task that works until its token is cancelled. One that panics ends the service, which is started again:
    /// without it nothing would do its work.
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(CancellationToken) -> F,
    ) {
        let end_with_task = self.shutdown.clone().drop_guard();
        let work = work(self.stop.clone());
        let task = tokio::spawn(async move {
            let _end_with_task = end_with_task;
            work.await;
        });
        self.running.push((name, task));
    }

    /// Serves until the service is to end; then ends the tasks, and waits for them.
    ///
    /// # Errors
    /// [`ServeError::Server`] or [`ServeError::Task`].
    pub async fn serve(mut self, server: Server, listener: TcpListener) -> Result<(), ServeError> {
        let ended = server.serve(listener, self.shutdown.clone()).await;
        self.stop.cancel();
        let mut all = Ok(());
        for (name, task) in self.running.drain(..) {
            all = all.and(task.await.map_err(|error| ServeError::Task(name, error)));
        }
        ended?;
        all
    }
}

impl Drop for Tasks {
    /// A service that is dropped in the middle takes its tasks with it.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
