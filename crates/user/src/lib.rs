//! The user service: profiles with few writes and very many reads. Postgres is the truth, Redis its
//! cache.
//!
//! A call passes `rpc -> domain -> {store, cache, local_cache} -> model`. [`domain`] decides the
//! order of these layers and documents the invariants. A read passes on the bytes of the response,
//! which [`wire`] encodes once, from the row. `tasks::relay` applies writes to the cache that their
//! writer could not apply, and publishes the notifications that [`watch`] sends to streams of
//! WatchUsers. Invalidations sent by Redis keep the [`local_cache`] from serving outdated profiles.

pub mod cache;
pub mod config;
pub mod domain;
pub mod local_cache;
mod metrics;
pub mod model;
pub mod rpc;
pub mod store;
pub mod tasks;
pub mod watch;
pub mod wire;

use std::future::ready;

use tidings_postgres::Migrations;
use tidings_proto::user::encoded::user_service_server::UserServiceServer;
use tidings_redis::Role;
use tidings_server::{RESPONSE_MAX, Server};
use tidings_service::probe::{self, Probe};
use tidings_service::{Database, Service, Tasks, listen, open_redis};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::Config;
pub use tidings_service::ServeError;

/// The migrations of the schema.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();

/// Services reported as not serving while Postgres is unavailable; Redis is optional.
const SERVICES: &[&str] = &[tidings_proto::user::encoded::user_service_server::SERVICE_NAME];

/// Limit of the size of a request in bytes: about four times the largest legal one, 1,000 ids of
/// WatchUsers, and more than ten times the largest profile.
const REQUEST_MAX: usize = 256 * 1024;

impl Service for Config {
    const NAME: &'static str = "tidings-user";
    const ABOUT: &'static str = "The user service of Tidings: profiles with few writes and very many reads";
    const MIGRATIONS: Option<Migrations> = Some(Migrations::new("user", &MIGRATOR));

    fn server(&self) -> &tidings_server::Args {
        &self.server
    }

    async fn run(mut self, shutdown: CancellationToken) -> Result<(), ServeError> {
        self.cache.validate()?;
        let listener = listen(self.listen, &mut self.server).await?;
        serve(self, listener, shutdown).await
    }
}

/// Serves on a listener until `shutdown`, then ends calls, background tasks, writes in flight and
/// connections, in this order.
pub async fn serve(config: Config, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServeError> {
    let migrations = Migrations::new("user", &MIGRATOR);
    let database = Database::new(&config.postgres, migrations, config.migrate, "tidings-user");
    let postgres = database.postgres();
    let redis = open_redis(&config.redis, cache::SERVICE, Role::Cache, cache::PERMISSIONS).await?;
    let probes = vec![Probe::postgres(&postgres), Probe::redis(&redis, Role::Cache)];
    let source = redis.source();
    postgres.on_incarnation({
        let source = source.clone();
        move |incarnation| source.set(incarnation)
    });
    let cache = cache::Cache::new(redis, config.cache.ttls());
    let store = store::Store::new(postgres);
    let watches = domain::UserWatches::new(store.clone(), watch::WatchRegistry::new(config.watches.limits()));
    let subscriber = tasks::notifications::open(&config.redis, watches.clone()).map_err(ServeError::Redis)?;
    let users = domain::Users::new(store, cache, config.cache.local_cache(), config.cache.wait_times());
    let tracking_users = users.clone();
    let on_event = move |event: cache::TrackingEvent<'_>| tracking_users.on_tracking_event(event);
    let _tracker = match config.cache.user_local_cache_bytes {
        0 => None,
        _ => Some(cache::track(&config.redis, source, on_event).map_err(ServeError::Redis)?),
    };

    let server = Server::new(&config.server);
    let mut tasks = Tasks::new(shutdown);
    tasks.begin(database.open(server.health(), ready(())));
    tasks.spawn("probes", |stop| probe::watch(server.health(), SERVICES, probes, stop));
    let interval = *config.watches.user_compare_interval;
    tasks.spawn("user notifications", |stop| tasks::notifications::run(watches.clone(), subscriber, stop));
    tasks.spawn("comparison of watched versions", |stop| tasks::compare::run(watches.clone(), interval, stop));
    tasks.spawn("user cache relay", |stop| tasks::relay::run(users.clone(), *config.cache.user_relay_tick, stop));

    tracing::info!(address = ?listener.local_addr().ok(), "serving users");
    let service = UserServiceServer::new(rpc::Rpc::new(users.clone(), watches))
        .max_decoding_message_size(REQUEST_MAX)
        .max_encoding_message_size(RESPONSE_MAX);
    let server = server.add(service).reflect(tidings_proto::DESCRIPTORS);
    let ended = tasks.serve(server, listener).await;
    users.close().await;
    ended
}
