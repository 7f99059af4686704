//! The lock service in process, one or several instances on a database and a key prefix of their own.
//!
//! Each instance has a runtime of its own, so that it can be killed as a process is: nothing of it runs any more, not even what
//! would tidy up.

pub(crate) mod client;
pub(crate) mod redis;

use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tidings_devstack::{Devstack, Options, testing};
use tidings_lock::config::LockArgs;
use tidings_lock::leases::{Leases, Limits};
use tidings_lock::{Config, MIGRATOR};
use tidings_redis::{Redis, Role};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::client::Client;
use self::redis::Tampering;

/// Longest wait for what must come true: generous, for a debug build on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// So long that a test does not see it happen.
pub(crate) const NEVER: Duration = Duration::from_hours(1);

/// The lease of who does not say: short, so that a quarantine is.
pub(crate) const TTL: Duration = Duration::from_secs(1);

/// How much longer than its holder believes such a lease stands.
pub(crate) const GRACE: Duration = Duration::from_millis(1010);

/// Some instances of the service on one database and one key prefix; as a [`Client`], it is that of the first.
pub(crate) struct Locks<'a> {
    pub(crate) stack: &'a Devstack,
    pub(crate) database: String,
    pub(crate) prefix: String,
    instances: Vec<Instance>,
}

struct Instance {
    config: Config,
    client: Client,
    running: Option<Running>,
}

struct Running {
    runtime: Runtime,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl Locks<'static> {
    /// One instance on the servers that all tests share.
    pub(crate) async fn start() -> Self {
        Self::start_on(testing::shared().await, 1, |_, _| {}).await
    }

    /// Two instances on the servers that all tests share.
    pub(crate) async fn start_two() -> Self {
        Self::start_on(testing::shared().await, 2, |_, _| {}).await
    }
}

impl<'a> Locks<'a> {
    /// Instances whose settings are tuned, each by its place.
    pub(crate) async fn start_on(stack: &'a Devstack, instances: usize, tune: impl Fn(usize, &mut Config)) -> Self {
        let database = testing::database(stack, &MIGRATOR, "lock").await;
        let prefix = testing::key_prefix();
        let mut locks = Self { stack, database, prefix, instances: Vec::new() };
        for place in 0..instances {
            locks.add(|config| tune(place, config)).await;
        }
        if stack.redis().running() {
            for place in 0..instances {
                let client = locks.client(place);
                eventually("the instance is in an epoch", async || client.get("none").await.is_ok()).await;
            }
        }
        locks
    }

    /// One more instance.
    pub(crate) async fn add(&mut self, tune: impl FnOnce(&mut Config)) {
        let mut config = self.config();
        tune(&mut config);
        self.instances.push(Instance::start(config).await);
    }

    /// The defaults, but patient: a debug build on a busy machine is slow and yet no outage.
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

    /// A client of one instance; it reconnects when the instance is started again.
    pub(crate) fn client(&self, place: usize) -> Client {
        self.instances[place].client.clone()
    }

    /// Kills an instance: nothing of it runs any more.
    pub(crate) fn kill(&mut self, place: usize) {
        self.instances[place].kill();
    }

    /// Ends an instance in order.
    pub(crate) async fn stop(&mut self, place: usize) {
        self.ask_to_stop(place);
        self.stopped(place).await;
    }

    /// Asks an instance to end in order.
    pub(crate) fn ask_to_stop(&self, place: usize) {
        self.instances[place].running.as_ref().unwrap().stop.cancel();
    }

    /// Waits until it has.
    pub(crate) async fn stopped(&mut self, place: usize) {
        let running = self.instances[place].running.as_mut().unwrap();
        (&mut running.served).await.unwrap();
        self.instances[place].kill();
    }

    /// Starts an instance again, at the same address.
    pub(crate) async fn restart(&mut self, place: usize) {
        self.instances[place].serve().await;
    }

    /// The scripts themselves, beside the service.
    pub(crate) fn leases(&self, limits: Limits) -> Leases {
        Leases::new(Redis::open(&self.redis_args(), "lock", Role::State).unwrap(), limits)
    }

    /// A hand in Redis, beside the service.
    pub(crate) async fn redis(&self) -> Tampering {
        Tampering::connect(self.stack.redis(), &self.prefix).await
    }

    /// The answer of Postgres to a question about one number.
    pub(crate) async fn ask_postgres(&self, query: &'static str) -> i64 {
        let mut connection = PgConnection::connect(&self.database).await.unwrap();
        let answer = sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        answer
    }

    /// Changes something in Postgres.
    pub(crate) async fn tell_postgres(&self, statement: &'static str) {
        let mut connection = PgConnection::connect(&self.database).await.unwrap();
        sqlx::query(statement).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// The last epoch in Postgres.
    pub(crate) async fn epoch(&self) -> i64 {
        self.ask_postgres("SELECT epoch FROM lock_epoch").await
    }

    /// Waits until so many wait for a lock.
    pub(crate) async fn until_waiting(&self, name: &str, count: i32) {
        eventually(&format!("{count} wait for {name}"), async || {
            self.get(name).await.is_ok_and(|lock| lock.waiter_count == count)
        })
        .await;
    }
}

impl Deref for Locks<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.instances[0].client
    }
}

impl Instance {
    async fn start(mut config: Config) -> Self {
        let listener = TcpListener::bind(config.listen).await.unwrap();
        config.listen = listener.local_addr().unwrap();
        drop(listener);
        let client = Client::new(config.listen);
        let mut instance = Self { config, client, running: None };
        instance.serve().await;
        instance
    }

    async fn serve(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (stop, config) = (CancellationToken::new(), self.config.clone());
        let shutdown = stop.clone();
        let served = runtime.spawn(async move {
            let listener = TcpListener::bind(config.listen).await.unwrap();
            tidings_lock::serve(config, listener, shutdown).await.unwrap();
        });
        self.running = Some(Running { runtime, stop, served });
        self.client.reachable().await;
    }

    fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            // A runtime must not be ended by a task of another one; and when this returns, nothing of it goes on.
            std::thread::spawn(|| running.runtime.shutdown_timeout(PATIENCE)).join().unwrap();
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A Postgres and a Redis that a test may kill.
pub(crate) async fn own_stack() -> Devstack {
    Devstack::start(Options::temporary()).await.unwrap()
}

/// Asks again and again until it holds.
///
/// # Panics
///
/// If it does not within [`PATIENCE`].
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
