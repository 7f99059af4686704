//! The broadcast service: publish once, deliver to everybody who listens, and to those who were away. Redis numbers and
//! keeps the messages, its pub/sub carries the news.
//!
//! A call goes `rpc -> domain -> {channels, hub} -> model`: `channels` is Redis, [`hub`] is what this instance hears
//! and who listens to it, and reads from `channels` what it has missed. The invariants stand at the heads of [`domain`]
//! and [`hub`].

pub mod channels;
pub mod config;
pub mod domain;
pub mod hub;
pub mod model;
mod numbers;
pub mod rpc;
pub mod tasks;
pub mod wire;

use std::sync::Arc;

use tidings_proto::broadcast::encoded::broadcast_service_server::{BroadcastServiceServer, SERVICE_NAME};
use tidings_redis::Role;
use tidings_server::probe::{self, Probe};
use tidings_server::{ANSWER_MAX, Server, Tasks, listen, open_redis};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::Config;
pub use tidings_server::ServeError;

/// The largest request: a batch of 4 MiB, and a little, so that one that is too large by a little is told so in our
/// words.
const REQUEST_MAX: usize = 4 * 1024 * 1024 + 64 * 1024;

/// Binds the configured address and serves until `shutdown`.
pub async fn run(mut config: Config, shutdown: CancellationToken) -> Result<(), ServeError> {
    config.streams.validate()?;
    let listener = listen(config.listen, &mut config.server).await?;
    serve(config, listener, shutdown).await
}

/// Serves on a listener until `shutdown`, then ends in order: streams, calls, tasks.
pub async fn serve(config: Config, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServeError> {
    let redis = open_redis(&config.redis, "broadcast", Role::State).await?;
    let probes = vec![Probe::redis(&redis, Role::State)];
    let channels = Arc::new(channels::Channels::new(redis, config.channels.kept()));
    let hub = hub::Hub::new(Arc::clone(&channels), config.streams.limits());
    let broadcasts = domain::Broadcasts::new(channels, hub);
    let subscriber = tasks::listen(&config.redis, broadcasts.clone()).map_err(ServeError::Redis)?;

    let server = Server::new(&config.server);
    let mut tasks = Tasks::new(shutdown);
    tasks.spawn("the probes", |stop| probe::watch(server.health(), &[SERVICE_NAME], probes, stop));
    let interval = *config.streams.broadcast_compare_interval;
    tasks.spawn("joining and leaving", |stop| tasks::attend(broadcasts.clone(), subscriber, stop));
    tasks.spawn("the repair of rings", |stop| tasks::repair(broadcasts.clone(), stop));
    tasks.spawn("the comparison with redis", |stop| tasks::compare(broadcasts.clone(), interval, stop));
    tasks.spawn("the watch over what is heard", |stop| tasks::watch(broadcasts.clone(), server.health(), stop));

    tracing::info!(address = ?listener.local_addr().ok(), "serving broadcasts");
    let rpc = rpc::Rpc::new(broadcasts);
    let server = server
        .add(
            BroadcastServiceServer::new(rpc)
                .max_decoding_message_size(REQUEST_MAX)
                .max_encoding_message_size(ANSWER_MAX),
        )
        .reflect(tidings_proto::DESCRIPTORS);
    tasks.serve(server, listener).await
}
