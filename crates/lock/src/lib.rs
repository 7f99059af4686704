//! The lock service: exclusive leases with owners, a fair wait queue, and fencing tokens that grow
//! even when Redis loses its state.
//!
//! A call goes `rpc -> domain -> {leases, store} -> model`. [`domain`] holds the invariants and
//! decides on the order in which Redis and Postgres are touched. `tasks::sweep` ends expired holds,
//! `tasks::recheck` compares the waiters of this instance with Redis, and `tasks::notifications`
//! receives their offers.

pub mod config;
pub mod domain;
pub mod leases;
mod metrics;
pub mod model;
pub mod rpc;
pub mod store;
pub mod tasks;
pub mod wire;

use tidings_postgres::Migrations;
use tidings_proto::lock::lock_service_server::{LockServiceServer, SERVICE_NAME};
use tidings_redis::{Role, Subscriber};
use tidings_server::{RESPONSE_MAX, Server};
use tidings_service::probe::{self, Probe};
use tidings_service::{Database, Service, Tasks, listen, open_redis};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use model::LockName;

pub use config::Config;
pub use tidings_service::ServeError;

/// Migrations of the schema.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();

/// Lock that the health probe reads. Its name is not legal in a request, so no client can acquire
/// it.
const PROBE: &str = "/probe";

/// Concurrent calls per connection: 768 waiting ones, and 256 more.
const MAX_STREAMS: u32 = 1024;

/// Largest request, in bytes: many times the largest legal one.
const REQUEST_MAX: usize = 64 * 1024;

impl Service for Config {
    const NAME: &'static str = "tidings-lock";
    const ABOUT: &'static str = "The lock service of Tidings: exclusive leases with fencing tokens";
    const MIGRATIONS: Option<Migrations> = Some(Migrations::new("lock", &MIGRATOR));

    fn server(&self) -> &tidings_server::Args {
        &self.server
    }

    async fn run(mut self, shutdown: CancellationToken) -> Result<(), ServeError> {
        let listener = listen(self.listen, &mut self.server).await?;
        serve(self, listener, shutdown).await
    }
}

/// Serves on a listener until `shutdown`, then ends calls, tasks, background jobs and connections,
/// in this order.
pub async fn serve(config: Config, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServeError> {
    let migrations = Migrations::new("lock", &MIGRATOR);
    let database = Database::new(&config.postgres, migrations, config.migrate, "tidings-lock");
    let postgres = database.postgres();
    let redis = open_redis(&config.redis, "lock", Role::State, leases::PERMISSIONS).await?;
    let mut probes = vec![Probe::redis(&redis, Role::State), Probe::postgres(&postgres).optional()];
    let leases = leases::Leases::new(redis, leases::LockLimits::default());
    let (default_ttl, max_waiters) = (*config.locks.lock_default_ttl, config.locks.lock_max_waiters);
    let locks =
        domain::LockManager::new(store::Store::new(postgres), leases, default_ttl, max_waiters, shutdown.clone());
    let verified = locks.clone();
    database.postgres().on_incarnation(move |_| verified.verify_epoch());
    let receiver = locks.clone();
    let on_message = move |_: &str, message: Vec<u8>| receiver.on_notification(&message);
    let subscriber = Subscriber::open(&config.redis, "lock", Role::State, on_message).map_err(ServeError::Redis)?;
    let fresh_start = locks.clone();
    let before_serving = async move {
        if config.locks.lock_fresh_start {
            fresh_start.start_fresh().await;
        }
    };

    let health_check = locks.clone();
    probes.push(Probe::required("epoch", move || {
        let locks = health_check.clone();
        async move { locks.get(LockName::new(PROBE.to_owned())).await.is_ok() }
    }));
    let server = Server::new(&config.server).default_max_streams(MAX_STREAMS);
    let mut tasks = Tasks::new(shutdown);
    tasks.begin(database.open(server.health(), before_serving));
    tasks.spawn("probes", |stop| probe::watch(server.health(), &[SERVICE_NAME], probes, stop));
    tasks.spawn("lock sweep", |stop| tasks::sweep::run(locks.clone(), *config.locks.lock_sweep_tick, stop));
    tasks.spawn("waiter recheck", |stop| tasks::recheck::run(locks.clone(), *config.locks.lock_reread_tick, stop));
    tasks.spawn("waiter notifications", |stop| tasks::notifications::run(locks.clone(), subscriber, stop));

    tracing::info!(address = ?listener.local_addr().ok(), "serving locks");
    let service = LockServiceServer::new(rpc::Rpc::new(locks.clone(), default_ttl));
    let server = server
        .add(service.max_decoding_message_size(REQUEST_MAX).max_encoding_message_size(RESPONSE_MAX))
        .reflect(tidings_proto::DESCRIPTORS);
    let result = tasks.serve(server, listener).await;
    locks.close().await;
    result
}
