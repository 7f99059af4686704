//! The user service: profiles, few writes, very many reads. Postgres is the truth, Redis the cache in front of it.
//!
//! A call goes `rpc -> domain -> {store, cache} -> model`; which of store and cache is touched first is decided in
//! [`domain`], where the invariants stand. `tasks::relay` repairs the cache where a writer could not.

pub mod cache;
pub mod config;
pub mod domain;
pub mod model;
pub mod rpc;
pub mod store;
pub mod tasks;
pub mod wire;

use tidings_postgres::{Migrations, Postgres};
use tidings_proto::user::user_service_server::UserServiceServer;
use tidings_redis::Redis;
use tidings_server::Server;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::Config;

/// The schema, as a list of steps.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();

/// The largest request: a profile of the largest legal size is a tenth of it.
const REQUEST_MAX: usize = 256 * 1024;

/// Why the service could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address can not be bound.
    #[error("can not listen on {0}")]
    Listen(std::net::SocketAddr, #[source] std::io::Error),
    /// The schema is not as it should be.
    #[error(transparent)]
    Migrate(#[from] tidings_postgres::MigrateError),
    /// Postgres can not be used.
    #[error(transparent)]
    Postgres(#[from] tidings_postgres::StartError),
    /// The URL of Redis can not be used.
    #[error("can not use redis")]
    Redis(#[source] tidings_redis::OpenError),
    /// The relay ended unasked.
    #[error("the relay ended")]
    Relay(#[source] tokio::task::JoinError),
    /// The process can not be told to stop.
    #[error("can not listen for signals")]
    Signal(#[source] std::io::Error),
    /// The server did not start.
    #[error("can not serve")]
    Server(#[from] tidings_server::Error),
}

/// Applies what is pending of the schema.
pub async fn migrate(args: &tidings_postgres::Args) -> Result<(), ServeError> {
    Ok(Migrations::new(&MIGRATOR).apply(args).await?)
}

/// Binds the configured address and serves until `shutdown`.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), ServeError> {
    let listener = TcpListener::bind(config.listen).await.map_err(|error| ServeError::Listen(config.listen, error))?;
    serve(config, listener, shutdown).await
}

/// Serves on a listener until `shutdown`, then ends in order: calls, writes under way, relay, connections.
pub async fn serve(config: Config, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServeError> {
    let migrations = Migrations::new(&MIGRATOR);
    if config.migrate {
        migrations.apply(&config.postgres).await?;
    }
    migrations.check(&config.postgres).await?;
    let postgres = Postgres::connect(&config.postgres, "tidings-user").await?;
    let redis = Redis::open(&config.redis, "user").map_err(ServeError::Redis)?;
    let cache = cache::Cache::new(redis, config.cache.lives());
    let users = domain::Users::new(store::Store::new(postgres), cache, *config.cache.user_fill_wait);

    let stop = CancellationToken::new();
    let _stop_with_us = stop.clone().drop_guard();
    // A relay that panics ends the service, which is started again: without it nothing would repair the cache.
    let end_with_relay = shutdown.clone().drop_guard();
    let relay = tasks::relay::run(users.clone(), *config.cache.user_relay_tick, stop.clone());
    let relay = tokio::spawn(async move {
        let _end_with_relay = end_with_relay;
        relay.await;
    });

    tracing::info!(address = ?listener.local_addr().ok(), "serving users");
    let service = UserServiceServer::new(rpc::Rpc::new(users.clone())).max_decoding_message_size(REQUEST_MAX);
    let served =
        Server::new(&config.server).add(service).reflect(tidings_proto::DESCRIPTORS).serve(listener, shutdown).await;

    stop.cancel();
    let relayed = relay.await;
    users.close().await;
    served?;
    relayed.map_err(ServeError::Relay)
}
