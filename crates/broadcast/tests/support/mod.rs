//! Runs the broadcast service in process: one or more instances on their own key prefix.

pub(crate) mod client;
pub(crate) mod ledger;
pub(crate) mod proxy;
pub(crate) mod recorder;
pub(crate) mod redis;
pub(crate) mod stream;

use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Duration;

use tidings_broadcast::Config;
use tidings_broadcast::config::{ChannelArgs, StreamArgs};
use tidings_devstack::{RedisServer, testing};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::client::BroadcastClient;
use self::redis::BroadcastRedis;

/// Instances of the service on one key prefix. Dereferences to the client of the first instance.
pub(crate) struct BroadcastCluster<'a> {
    pub(crate) server: &'a RedisServer,
    pub(crate) prefix: String,
    instances: Vec<BroadcastInstance>,
}

struct BroadcastInstance {
    config: Config,
    client: BroadcastClient,
    stop: CancellationToken,
    serving: Option<JoinHandle<()>>,
}

impl BroadcastCluster<'static> {
    /// Starts one instance on the shared Redis.
    pub(crate) async fn start() -> Self {
        Self::start_tuned(1, |_| {}).await
    }

    /// Starts two instances on the shared Redis.
    pub(crate) async fn start_two() -> Self {
        Self::start_tuned(2, |_| {}).await
    }

    /// Starts instances on the shared Redis, with tuned settings.
    pub(crate) async fn start_tuned(instances: usize, tune: impl Fn(&mut Config)) -> Self {
        Self::start_on(testing::shared_redis().await, instances, |_, config| tune(config)).await
    }
}

impl<'a> BroadcastCluster<'a> {
    /// Starts instances on a Redis, with settings tuned by the index of the instance.
    pub(crate) async fn start_on(server: &'a RedisServer, instances: usize, tune: impl Fn(usize, &mut Config)) -> Self {
        let mut cluster = Self { server, prefix: testing::key_prefix(), instances: Vec::new() };
        for index in 0..instances {
            let mut config = cluster.config();
            tune(index, &mut config);
            cluster.instances.push(BroadcastInstance::start(config).await);
        }
        cluster
    }

    /// Returns the defaults with longer timeouts: a debug build on a busy machine is slow.
    fn config(&self) -> Config {
        let mut redis = tidings_redis::Args::new(self.server.url().parse().unwrap());
        redis.redis_prefix.clone_from(&self.prefix);
        redis.redis_timeout = Some(Duration::from_secs(2).into());
        redis.redis_connect_timeout = Duration::from_secs(2).into();
        let server = tidings_server::Args {
            lame_duck: Duration::ZERO.into(),
            drain: Duration::from_secs(5).into(),
            ..Default::default()
        };
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Config { listen, redis, server, channels: ChannelArgs::default(), streams: StreamArgs::default() }
    }

    /// Returns the address of an instance.
    pub(crate) fn address(&self, index: usize) -> SocketAddr {
        self.instances[index].config.listen
    }

    /// Returns the client of an instance that shares one connection.
    pub(crate) fn client(&self, index: usize) -> BroadcastClient {
        self.instances[index].client.clone()
    }

    /// Makes a client of an instance with its own connection.
    pub(crate) fn new_client(&self, index: usize) -> BroadcastClient {
        BroadcastClient::new(self.address(index))
    }

    /// Makes a client of an instance with its own connection and 64 KiB flow-control windows.
    pub(crate) fn client_with_small_windows(&self, index: usize) -> BroadcastClient {
        BroadcastClient::with_small_windows(self.address(index))
    }

    /// Starts the shutdown of an instance, without waiting for its end.
    pub(crate) fn shut_down(&self, index: usize) {
        self.instances[index].stop.cancel();
    }

    /// Waits until an instance has shut down.
    pub(crate) async fn wait_until_ended(&mut self, index: usize) {
        self.instances[index].serving.take().unwrap().await.unwrap();
    }

    /// Opens a direct connection to Redis.
    pub(crate) async fn redis(&self) -> BroadcastRedis {
        BroadcastRedis::connect(self.server, &self.prefix).await
    }
}

impl Deref for BroadcastCluster<'_> {
    type Target = BroadcastClient;

    fn deref(&self) -> &BroadcastClient {
        &self.instances[0].client
    }
}

impl BroadcastInstance {
    async fn start(mut config: Config) -> Self {
        let listener = TcpListener::bind(config.listen).await.unwrap();
        config.listen = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let service = tidings_broadcast::serve(config.clone(), listener, stop.clone());
        let serving = tokio::spawn(async { service.await.unwrap() });
        let client = BroadcastClient::new(config.listen);
        let instance = Self { config, client, stop, serving: Some(serving) };
        instance.client.wait_until_reachable().await;
        instance
    }
}
