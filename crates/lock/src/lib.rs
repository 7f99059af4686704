//! The lock service: exclusive leases with owners, a fair queue, and fencing tokens that grow whatever Redis forgets.
//!
//! A call goes `rpc -> domain -> {leases, store} -> model`; which of Redis and Postgres is touched first is decided in
//! [`domain`], where the invariants stand. `tasks::sweep` ends what is over, `tasks::reread` looks after those who wait, and
//! `tasks::news` hears what they are offered.

pub mod config;
pub mod domain;
pub mod leases;
pub mod model;
mod numbers;
pub mod rpc;
pub mod store;
pub mod tasks;
pub mod wire;

use tidings_postgres::Migrations;
use tidings_proto::lock::lock_service_server::{LockServiceServer, SERVICE_NAME};
use tidings_redis::{Role, Subscriber};
use tidings_server::probe::{self, Probe};
use tidings_server::{ANSWER_MAX, Database, Server, Tasks, listen, open_redis};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use model::LockName;

pub use config::Config;
pub use tidings_server::ServeError;

/// The schema, as a list of steps.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();

/// The lock that is looked at to see whether locks work at all: nobody can acquire it, its name is not one of a caller.
const PROBE: &str = "/probe";

/// The largest request: many times one of the largest legal size.
const REQUEST_MAX: usize = 64 * 1024;

/// Applies what is pending of the schema.
pub async fn migrate(args: &tidings_postgres::Args) -> Result<(), ServeError> {
    Ok(Migrations::new(&MIGRATOR).apply(args).await?)
}

/// Binds the configured address and serves until `shutdown`.
pub async fn run(mut config: Config, shutdown: CancellationToken) -> Result<(), ServeError> {
    let listener = listen(config.listen, &mut config.server).await?;
    serve(config, listener, shutdown).await
}

/// Serves on a listener until `shutdown`, then ends in order: calls, tasks, what calls left behind, connections.
pub async fn serve(config: Config, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServeError> {
    let migrations = Migrations::new(&MIGRATOR);
    let database = Database::new(&config.postgres, migrations, config.migrate, "tidings-lock");
    let postgres = database.postgres();
    let redis = open_redis(&config.redis, "lock", Role::State).await?;
    let mut probes = vec![Probe::redis(&redis, Role::State), Probe::postgres(&postgres).only_helpful()];
    let leases = leases::Leases::new(redis, leases::Limits::default());
    let (default_ttl, max_waiters) = (*config.locks.lock_default_ttl, config.locks.lock_max_waiters);
    let locks = domain::Locks::new(store::Store::new(postgres), leases, default_ttl, max_waiters, shutdown.clone());
    let ear = locks.clone();
    let hear = move |_: &str, message: Vec<u8>| ear.hear(&message);
    let subscriber = Subscriber::open(&config.redis, "lock", Role::State, hear).map_err(ServeError::Redis)?;
    let fresh = locks.clone();
    let first = async move {
        if config.locks.lock_fresh_start {
            fresh.start_fresh().await;
        }
    };

    let epoch = locks.clone();
    probes.push(Probe::vital("epoch", move || {
        let locks = epoch.clone();
        async move { locks.look(LockName::new(PROBE.to_owned())).await.is_ok() }
    }));
    let server = Server::new(&config.server);
    let mut tasks = Tasks::new(shutdown);
    tasks.begin(database.open(server.health(), first));
    tasks.spawn("the probes", |stop| probe::watch(server.health(), &[SERVICE_NAME], probes, stop));
    tasks.spawn("the sweep", |stop| tasks::sweep::run(locks.clone(), *config.locks.lock_sweep_tick, stop));
    tasks.spawn("the look after waiters", |stop| {
        tasks::reread::run(locks.clone(), *config.locks.lock_reread_tick, stop)
    });
    tasks.spawn("the news", |stop| tasks::news::run(locks.clone(), subscriber, stop));

    tracing::info!(address = ?listener.local_addr().ok(), "serving locks");
    let service = LockServiceServer::new(rpc::Rpc::new(locks.clone(), default_ttl));
    let server = server
        .add(service.max_decoding_message_size(REQUEST_MAX).max_encoding_message_size(ANSWER_MAX))
        .reflect(tidings_proto::DESCRIPTORS);
    let ended = tasks.serve(server, listener).await;
    locks.close().await;
    ended
}
