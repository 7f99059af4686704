//! The user service: profiles, few writes, very many reads. Postgres is the truth, Redis the cache in front of it.
//!
//! A call goes `rpc -> domain -> {store, cache, near} -> model`; which of them is touched first is decided in [`domain`], where
//! the invariants stand. What is read travels as the bytes that callers are told, which [`wire`] makes once, of the row.
//! `tasks::relay` repairs the cache where a writer could not, and tells the news by which [`watch`] serves those who watch
//! versions; what Redis says of changes keeps the memory of the instance, [`near`], from answering what is outdated.

pub mod cache;
pub mod config;
pub mod domain;
pub mod model;
pub mod near;
mod numbers;
pub mod rpc;
pub mod store;
pub mod tasks;
pub mod watch;
pub mod wire;

use std::future::ready;

use tidings_postgres::Migrations;
use tidings_proto::user::encoded::user_service_server::UserServiceServer;
use tidings_redis::Role;
use tidings_server::probe::{self, Probe};
use tidings_server::{ANSWER_MAX, Database, Server, Tasks, listen, open_redis};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::Config;
pub use tidings_server::ServeError;

/// The schema, as a list of steps.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();

/// What Postgres is needed for; without Redis it only takes longer.
const SERVICES: &[&str] = &[tidings_proto::user::encoded::user_service_server::SERVICE_NAME];

/// The largest request: a profile of the largest legal size is a tenth of it.
const REQUEST_MAX: usize = 256 * 1024;

/// Applies what is pending of the schema.
pub async fn migrate(args: &tidings_postgres::Args) -> Result<(), ServeError> {
    Ok(Migrations::new(&MIGRATOR).apply(args).await?)
}

/// Binds the configured address and serves until `shutdown`.
pub async fn run(mut config: Config, shutdown: CancellationToken) -> Result<(), ServeError> {
    config.cache.validate()?;
    let listener = listen(config.listen, &mut config.server).await?;
    serve(config, listener, shutdown).await
}

/// Serves on a listener until `shutdown`, then ends in order: calls, relay, writes under way, connections.
pub async fn serve(config: Config, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServeError> {
    let migrations = Migrations::new(&MIGRATOR);
    let database = Database::new(&config.postgres, migrations, config.migrate, "tidings-user");
    let postgres = database.postgres();
    let redis = open_redis(&config.redis, cache::SERVICE, Role::Cache).await?;
    let probes = vec![Probe::postgres(&postgres), Probe::redis(&redis, Role::Cache)];
    let cache = cache::Cache::new(redis, config.cache.lives());
    let store = store::Store::new(postgres);
    let watching = domain::Watching::new(store.clone(), watch::Watches::new(config.watches.limits()));
    let subscriber = tasks::news::listen(&config.redis, watching.clone()).map_err(ServeError::Redis)?;
    let users = domain::Users::new(store, cache, config.cache.near(), config.cache.waits());
    let hearing = users.clone();
    let _tracker = match config.cache.user_near_bytes {
        0 => None,
        _ => Some(cache::track(&config.redis, move |heard| hearing.hear(heard)).map_err(ServeError::Redis)?),
    };

    let server = Server::new(&config.server);
    let mut tasks = Tasks::new(shutdown);
    tasks.begin(database.open(server.health(), ready(())));
    tasks.spawn("the probes", |stop| probe::watch(server.health(), SERVICES, probes, stop));
    let interval = *config.watches.user_compare_interval;
    tasks.spawn("listening to news", |stop| tasks::news::attend(watching.clone(), subscriber, stop));
    tasks.spawn("the comparison of versions", |stop| tasks::compare::run(watching.clone(), interval, stop));
    tasks.spawn("the relay", |stop| tasks::relay::run(users.clone(), *config.cache.user_relay_tick, stop));

    tracing::info!(address = ?listener.local_addr().ok(), "serving users");
    let service = UserServiceServer::new(rpc::Rpc::new(users.clone(), watching))
        .max_decoding_message_size(REQUEST_MAX)
        .max_encoding_message_size(ANSWER_MAX);
    let server = server.add(service).reflect(tidings_proto::DESCRIPTORS);
    let ended = tasks.serve(server, listener).await;
    users.close().await;
    ended
}
