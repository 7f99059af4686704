//! The broadcast service: a message is published once and delivered to all subscribers of its
//! channel, including those that reconnect later. Redis numbers and keeps the messages, and
//! notifies the instances over pub/sub.
//!
//! A call goes `rpc -> domain -> channels -> model`. [`channels`] is Redis. [`domain`] publishes
//! there, receives the notifications, serves the subscribers of this instance, and reads missed
//! messages. Its module docs list the invariants.

pub mod channels;
pub mod config;
pub mod domain;
mod metrics;
pub mod model;
pub mod rpc;
pub mod tasks;
pub mod wire;

use std::sync::Arc;

use tidings_proto::broadcast::encoded::broadcast_service_server::{BroadcastServiceServer, SERVICE_NAME};
use tidings_redis::Role;
use tidings_server::{RESPONSE_MAX, Server};
use tidings_service::probe::{self, Probe};
use tidings_service::{Service, Tasks, listen, open_redis};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::Config;
pub use tidings_service::ServeError;

/// Concurrent calls per connection: 768 streams, and 256 more.
const MAX_STREAMS: u32 = 1024;

/// Largest request in bytes: a batch of 4 MiB plus 64 KiB, so that a batch just over its limit gets
/// INVALID_FIELDS and not the transport's error.
const REQUEST_MAX: usize = 4 * 1024 * 1024 + 64 * 1024;

impl Service for Config {
    const NAME: &'static str = "tidings-broadcast";
    const ABOUT: &'static str =
        "The broadcast service of Tidings: delivers each message to all subscribers of its channel";

    fn server(&self) -> &tidings_server::Args {
        &self.server
    }

    async fn run(mut self, shutdown: CancellationToken) -> Result<(), ServeError> {
        self.streams.validate()?;
        let listener = listen(self.listen, &mut self.server).await?;
        serve(self, listener, shutdown).await
    }
}

/// Serves on `listener` until `shutdown` is cancelled, then ends streams, calls and tasks in this
/// order.
pub async fn serve(config: Config, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServeError> {
    let redis = open_redis(&config.redis, "broadcast", Role::State, channels::PERMISSIONS).await?;
    let probes = vec![Probe::redis(&redis, Role::State)];
    let channels = Arc::new(channels::ChannelStore::new(redis, config.channels.retention()));
    let hub = domain::Hub::new(channels, config.streams.limits());
    let subscriber = tasks::subscribe(&config.redis, Arc::clone(&hub)).map_err(ServeError::Redis)?;

    let server = Server::new(&config.server).default_max_streams(MAX_STREAMS);
    let mut tasks = Tasks::new(shutdown);
    tasks.spawn("probes", |stop| probe::watch(server.health(), &[SERVICE_NAME], probes, stop));
    let interval = *config.streams.broadcast_compare_interval;
    tasks.spawn("pub/sub", |stop| tasks::run_pubsub(Arc::clone(&hub), subscriber, stop));
    tasks.spawn("ring repair", |stop| tasks::repair_rings(Arc::clone(&hub), stop));
    tasks.spawn("comparison with redis", |stop| tasks::compare_with_redis(Arc::clone(&hub), interval, stop));
    tasks.spawn("pub/sub watchdog", |stop| tasks::watch_pubsub(Arc::clone(&hub), server.health(), stop));

    tracing::info!(address = ?listener.local_addr().ok(), "serving broadcasts");
    let rpc = rpc::Rpc::new(hub);
    let server = server
        .add(
            BroadcastServiceServer::new(rpc)
                .max_decoding_message_size(REQUEST_MAX)
                .max_encoding_message_size(RESPONSE_MAX),
        )
        .reflect(tidings_proto::DESCRIPTORS);
    tasks.serve(server, listener).await
}
