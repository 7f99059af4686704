//! One or several in-process instances of the lock service, on their own database and key prefix.
//!
//! Each instance has a runtime of its own, so that `kill` ends it like a process: no cleanup runs.

pub(crate) mod client;
pub(crate) mod redis;

use std::net::{SocketAddr, TcpListener as StdListener};
use std::ops::Deref;
use std::time::Duration;

use tidings_devstack::Devstack;
use tidings_devstack::testing::{self, PATIENCE, eventually};
use tidings_lock::config::LockArgs;
use tidings_lock::leases::{Leases, LockLimits};
use tidings_lock::{Config, MIGRATOR};
use tidings_redis::{Redis, Role};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::client::LockClient;
use self::redis::LockRedis;

/// Default lease: short, so that quarantines are short.
pub(crate) const TTL: Duration = Duration::from_secs(1);

/// Time by which a hold of `TTL` outlasts its holder's deadline.
pub(crate) const GRACE: Duration = Duration::from_millis(1010);

/// Instances of the service on one database and key prefix. Dereferences to the client of the
/// first.
pub(crate) struct LockFixture<'a> {
    pub(crate) stack: &'a Devstack,
    pub(crate) database: String,
    pub(crate) prefix: String,
    instances: Vec<LockServiceInstance>,
}

struct LockServiceInstance {
    config: Config,
    client: LockClient,
    running: Option<RunningInstance>,
}

struct RunningInstance {
    runtime: Runtime,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl LockFixture<'static> {
    /// Starts one instance on the servers that all tests share.
    pub(crate) async fn start() -> Self {
        Self::start_on(testing::shared().await, 1, |_, _| {}).await
    }

    /// Starts two instances on the servers that all tests share.
    pub(crate) async fn start_two() -> Self {
        Self::start_on(testing::shared().await, 2, |_, _| {}).await
    }
}

impl<'a> LockFixture<'a> {
    /// Starts instances whose settings are tuned by their index.
    pub(crate) async fn start_on(stack: &'a Devstack, instances: usize, tune: impl Fn(usize, &mut Config)) -> Self {
        let database = testing::database(stack, &MIGRATOR, "lock").await;
        let prefix = testing::key_prefix();
        let mut locks = Self { stack, database, prefix, instances: Vec::new() };
        for index in 0..instances {
            locks.add(|config| tune(index, config)).await;
        }
        if stack.redis().running() {
            for index in 0..instances {
                let client = locks.client(index);
                eventually("the instance is in an epoch", async || client.get("none").await.is_ok()).await;
            }
        }
        locks
    }

    /// Starts one more instance.
    pub(crate) async fn add(&mut self, tune: impl FnOnce(&mut Config)) {
        let mut config = self.config();
        tune(&mut config);
        self.instances.push(LockServiceInstance::start(config).await);
    }

    /// Default settings with longer timeouts: a debug build on a busy machine is slow without an
    /// outage.
    fn config(&self) -> Config {
        let mut postgres = tidings_postgres::Args::new(self.database.parse().unwrap());
        postgres.postgres_connections = 4;
        postgres.postgres_acquire_timeout = Duration::from_secs(5).into();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let locks = LockArgs { lock_default_ttl: TTL.into(), ..LockArgs::default() };
        let server = tidings_server::Args { lame_duck: Duration::ZERO.into(), ..Default::default() };
        Config { listen, migrate: false, postgres, redis: self.redis_args(), server, locks }
    }

    fn redis_args(&self) -> tidings_redis::Args {
        let mut redis = tidings_redis::Args::new(self.stack.redis().url().parse().unwrap());
        redis.redis_prefix.clone_from(&self.prefix);
        redis.redis_timeout = Some(Duration::from_secs(1).into());
        redis.redis_connect_timeout = Duration::from_secs(1).into();
        redis
    }

    /// Returns the client of an instance; it reconnects after a restart.
    pub(crate) fn client(&self, index: usize) -> LockClient {
        self.instances[index].client.clone()
    }

    /// Returns the address of an instance.
    pub(crate) fn address(&self, index: usize) -> SocketAddr {
        self.instances[index].config.listen
    }

    /// Kills an instance: none of its tasks runs any more.
    pub(crate) fn kill(&mut self, index: usize) {
        self.instances[index].kill();
    }

    /// Shuts an instance down gracefully.
    pub(crate) async fn stop(&mut self, index: usize) {
        self.begin_shutdown(index);
        self.wait_until_stopped(index).await;
    }

    /// Starts the graceful shutdown of an instance.
    pub(crate) fn begin_shutdown(&self, index: usize) {
        self.instances[index].running.as_ref().unwrap().stop.cancel();
    }

    /// Waits for the end of a graceful shutdown.
    pub(crate) async fn wait_until_stopped(&mut self, index: usize) {
        let running = self.instances[index].running.as_mut().unwrap();
        (&mut running.serving).await.unwrap();
        self.instances[index].kill();
    }

    /// Starts an instance again, at the same address.
    pub(crate) async fn restart(&mut self, index: usize) {
        self.instances[index].serve().await;
    }

    /// Returns the scripts, to run them without the service.
    pub(crate) fn leases(&self, limits: LockLimits) -> Leases {
        Leases::new(Redis::open(&self.redis_args(), "lock", Role::State).unwrap(), limits)
    }

    /// Connects to the service's Redis.
    pub(crate) async fn redis(&self) -> LockRedis {
        LockRedis::connect(self.stack.redis(), &self.prefix).await
    }

    /// Runs a query that returns one number.
    pub(crate) async fn query_postgres(&self, query: &'static str) -> i64 {
        testing::query_number(&self.database, query).await
    }

    /// Runs a statement in Postgres.
    pub(crate) async fn execute_in_postgres(&self, statement: &'static str) {
        testing::execute(&self.database, statement).await;
    }

    /// Reads the last epoch from Postgres.
    pub(crate) async fn epoch(&self) -> i64 {
        self.query_postgres("SELECT epoch FROM lock_epoch").await
    }

    /// Waits until a lock has `count` waiters.
    pub(crate) async fn wait_for_waiters(&self, name: &str, count: i32) {
        eventually(&format!("{name} has {count} waiters"), async || {
            self.get(name).await.is_ok_and(|lock| lock.waiter_count == count)
        })
        .await;
    }
}

impl Deref for LockFixture<'_> {
    type Target = LockClient;

    fn deref(&self) -> &LockClient {
        &self.instances[0].client
    }
}

impl LockServiceInstance {
    async fn start(mut config: Config) -> Self {
        let listener = StdListener::bind(config.listen).unwrap();
        config.listen = listener.local_addr().unwrap();
        let client = LockClient::new(config.listen);
        let mut instance = Self { config, client, running: None };
        instance.serve_on(listener).await;
        instance
    }

    /// Starts the service again, at the same address. A connection of another test may use the port
    /// for a moment.
    async fn serve(&mut self) {
        let mut bound = None;
        eventually("the port is free again", async || {
            bound = StdListener::bind(self.config.listen).ok();
            bound.is_some()
        })
        .await;
        self.serve_on(bound.unwrap()).await;
    }

    async fn serve_on(&mut self, listener: StdListener) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (stop, config) = (CancellationToken::new(), self.config.clone());
        let shutdown = stop.clone();
        let serving = runtime.spawn(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            tidings_lock::serve(config, listener, shutdown).await.unwrap();
        });
        self.running = Some(RunningInstance { runtime, stop, serving });
        self.client.wait_until_reachable().await;
    }

    fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            // A runtime must not be dropped by a task of another one; the join also waits for its
            // last task.
            std::thread::spawn(|| running.runtime.shutdown_timeout(PATIENCE)).join().unwrap();
        }
    }
}

impl Drop for LockServiceInstance {
    fn drop(&mut self) {
        self.kill();
    }
}
