//! The history service: every message of every conversation, in order. Postgres holds the truth;
//! Redis caches the tails, the newest messages of active conversations.
//!
//! A call goes through `rpc -> domain -> {store, cache} -> model`. [`domain`] decides the order in
//! which store and cache are touched, and lists the invariants. `tasks::relay` repairs tails that a
//! writer could not update, and publishes messages to broadcast.

pub mod cache;
pub mod config;
pub mod domain;
mod metrics;
pub mod model;
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
use tidings_server::{RESPONSE_MAX, Server};
use tidings_service::probe::{self, Probe};
use tidings_service::{Database, Service, Tasks, listen, open_redis};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::Config;
pub use tidings_service::ServeError;

/// The migrations of the schema, in order.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();

/// The gRPC services whose health depends on Postgres. Without Redis they are only slower.
const SERVICES: &[&str] = &[
    tidings_proto::history::history_service_server::SERVICE_NAME,
    tidings_proto::history::conversation_service_server::SERVICE_NAME,
];

/// Maximum size of a request, in bytes: about a hundred messages of the largest legal size.
const REQUEST_MAX: usize = 4 * 1024 * 1024;

impl Service for Config {
    const NAME: &'static str = "tidings-history";
    const ABOUT: &'static str = "The history service of Tidings: every message of every conversation, in order";
    const MIGRATIONS: Option<Migrations> = Some(Migrations::new("history", &MIGRATOR));

    fn server(&self) -> &tidings_server::Args {
        &self.server
    }

    async fn run(mut self, shutdown: CancellationToken) -> Result<(), ServeError> {
        self.relay.broadcast()?;
        let listener = listen(self.listen, &mut self.server).await?;
        serve(self, listener, shutdown).await
    }
}

/// Serves on a listener until `shutdown`, then ends calls, relay, writes in flight and connections,
/// in this order.
pub async fn serve(config: Config, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServeError> {
    let migrations = Migrations::new("history", &MIGRATOR);
    let database = Database::new(&config.postgres, migrations, config.migrate, "tidings-history");
    let postgres = database.postgres();
    let redis = open_redis(&config.redis, "history", Role::Cache, cache::PERMISSIONS).await?;
    let probes = vec![Probe::postgres(&postgres), Probe::redis(&redis, Role::Cache)];
    let source = redis.source();
    postgres.on_incarnation(move |incarnation| source.set(incarnation));
    let tails = Arc::new(cache::Tails::new(redis, config.tails.ttls()));
    let store = store::Store::new(postgres);
    let broadcast = config.relay.broadcast()?.map(|(at, credentials)| peer::Broadcast::new(at, &credentials));
    let park_after = config.relay.history_park_after;
    let relay = Arc::new(domain::Relay::new(store.clone(), Arc::clone(&tails), broadcast, park_after));
    let histories = domain::Histories::new(store, tails, Arc::clone(&relay));

    let server = Server::new(&config.server);
    let mut tasks = Tasks::new(shutdown);
    tasks.begin(database.open(server.health(), ready(())));
    tasks.spawn("dependency probes", |stop| probe::watch(server.health(), SERVICES, probes, stop));
    let tick = *config.relay.history_relay_tick;
    let subscriber = tasks::notifications::subscribe(&config.redis, Arc::clone(&relay)).map_err(ServeError::Redis)?;
    tasks.spawn("relay notification listener", |stop| tasks::notifications::run(subscriber, stop));
    tasks.spawn("relay", |stop| tasks::relay::run(Arc::clone(&relay), tick, stop));
    tasks.spawn("relay health monitor", |stop| tasks::relay::watch(relay, server.health(), stop));

    tracing::info!(address = ?listener.local_addr().ok(), "serving history");
    let rpc = rpc::Rpc::new(histories.clone());
    let server = server
        .add(
            HistoryServiceServer::new(rpc.clone())
                .max_decoding_message_size(REQUEST_MAX)
                .max_encoding_message_size(RESPONSE_MAX),
        )
        .add(
            ConversationServiceServer::new(rpc)
                .max_decoding_message_size(REQUEST_MAX)
                .max_encoding_message_size(RESPONSE_MAX),
        )
        .reflect(tidings_proto::DESCRIPTORS);
    let ended = tasks.serve(server, listener).await;
    histories.close().await;
    ended
}
