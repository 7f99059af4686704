//! The history service: every message of every conversation, in order. Postgres is the truth, Redis keeps the tails.
//!
//! A call goes `rpc -> domain -> {store, cache} -> model`; which of store and cache is touched first is decided in
//! [`domain`], where the invariants stand. `tasks::relay` repairs the tails where a writer could not.

pub mod cache;
pub mod config;
pub mod domain;
pub mod model;
mod numbers;
pub mod peer;
pub mod rpc;
pub mod store;
pub mod tasks;
pub mod wire;

use std::future::ready;
use std::sync::Arc;

use tidings_postgres::Migrations;
use tidings_proto::history::conversation_service_server::ConversationServiceServer;
use tidings_proto::history::history_service_server::HistoryServiceServer;
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
const SERVICES: &[&str] = &[
    tidings_proto::history::history_service_server::SERVICE_NAME,
    tidings_proto::history::conversation_service_server::SERVICE_NAME,
];

/// The largest request: a batch of about a hundred messages of the largest legal size.
const REQUEST_MAX: usize = 4 * 1024 * 1024;

/// Applies what is pending of the schema.
pub async fn migrate(args: &tidings_postgres::Args) -> Result<(), ServeError> {
    Ok(Migrations::new(&MIGRATOR).apply(args).await?)
}

/// Binds the configured address and serves until `shutdown`.
pub async fn run(mut config: Config, shutdown: CancellationToken) -> Result<(), ServeError> {
    config.relay.broadcast()?;
    let listener = listen(config.listen, &mut config.server).await?;
    serve(config, listener, shutdown).await
}

/// Serves on a listener until `shutdown`, then ends in order: calls, relay, writes under way, connections.
pub async fn serve(config: Config, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServeError> {
    let migrations = Migrations::new(&MIGRATOR);
    let database = Database::new(&config.postgres, migrations, config.migrate, "tidings-history");
    let postgres = database.postgres();
    let redis = open_redis(&config.redis, "history", Role::Cache).await?;
    let probes = vec![Probe::postgres(&postgres), Probe::redis(&redis, Role::Cache)];
    let tails = Arc::new(cache::Tails::new(redis, config.tails.lives()));
    let store = store::Store::new(postgres);
    let broadcast = config.relay.broadcast()?.map(|(at, credentials)| peer::Broadcast::new(at, &credentials));
    let park_after = config.relay.history_park_after;
    let relay = Arc::new(domain::Relay::new(store.clone(), Arc::clone(&tails), broadcast, park_after));
    let histories = domain::Histories::new(store, tails, Arc::clone(&relay));

    let server = Server::new(&config.server);
    let mut tasks = Tasks::new(shutdown);
    tasks.begin(database.open(server.health(), ready(())));
    tasks.spawn("the probes", |stop| probe::watch(server.health(), SERVICES, probes, stop));
    let tick = *config.relay.history_relay_tick;
    let ear = tasks::news::listen(&config.redis, Arc::clone(&relay)).map_err(ServeError::Redis)?;
    tasks.spawn("the ear of the relay", |stop| tasks::news::run(ear, stop));
    tasks.spawn("the relay", |stop| tasks::relay::run(Arc::clone(&relay), tick, stop));
    tasks.spawn("the watch of the relay", |stop| tasks::relay::watch(relay, server.health(), stop));

    tracing::info!(address = ?listener.local_addr().ok(), "serving histories");
    let rpc = rpc::Rpc::new(histories.clone());
    let server = server
        .add(
            HistoryServiceServer::new(rpc.clone())
                .max_decoding_message_size(REQUEST_MAX)
                .max_encoding_message_size(ANSWER_MAX),
        )
        .add(
            ConversationServiceServer::new(rpc)
                .max_decoding_message_size(REQUEST_MAX)
                .max_encoding_message_size(ANSWER_MAX),
        )
        .reflect(tidings_proto::DESCRIPTORS);
    let ended = tasks.serve(server, listener).await;
    histories.close().await;
    ended
}
