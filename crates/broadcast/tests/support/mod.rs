//! The broadcast service in process, one or several instances on a key prefix of their own.

pub(crate) mod client;
pub(crate) mod ear;
pub(crate) mod ledger;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod scribe;

use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Duration;

use tidings_broadcast::Config;
use tidings_broadcast::config::{ChannelArgs, StreamArgs};
use tidings_devstack::{Devstack, Options, testing};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::client::Client;
use self::redis::Tampering;

/// Longest wait for what must come true: generous, for a debug build on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// So long that a test does not see it happen.
pub(crate) const NEVER: Duration = Duration::from_hours(1);

/// Some instances of the service on one key prefix; as a [`Client`], it is that of the first.
pub(crate) struct Broadcasts<'a> {
    pub(crate) stack: &'a Devstack,
    pub(crate) prefix: String,
    instances: Vec<Instance>,
}

struct Instance {
    config: Config,
    client: Client,
    stop: CancellationToken,
    served: Option<JoinHandle<()>>,
}

impl Broadcasts<'static> {
    /// One instance on the Redis that all tests share.
    pub(crate) async fn start() -> Self {
        Self::start_tuned(1, |_| {}).await
    }

    /// Two instances on the Redis that all tests share.
    pub(crate) async fn start_two() -> Self {
        Self::start_tuned(2, |_| {}).await
    }

    /// Instances on the Redis that all tests share, whose settings are tuned.
    pub(crate) async fn start_tuned(instances: usize, tune: impl Fn(&mut Config)) -> Self {
        Self::start_on(testing::shared().await, instances, |_, config| tune(config)).await
    }
}

impl<'a> Broadcasts<'a> {
    /// Instances whose settings are tuned, each by its place.
    pub(crate) async fn start_on(stack: &'a Devstack, instances: usize, tune: impl Fn(usize, &mut Config)) -> Self {
        let mut broadcasts = Self { stack, prefix: testing::key_prefix(), instances: Vec::new() };
        for place in 0..instances {
            let mut config = broadcasts.config();
            tune(place, &mut config);
            broadcasts.instances.push(Instance::start(config).await);
        }
        broadcasts
    }

    /// The defaults, but patient: a debug build on a busy machine is slow and yet no outage.
    fn config(&self) -> Config {
        let mut redis = tidings_redis::Args::new(self.stack.redis().url().parse().unwrap());
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

    /// The address of one instance.
    pub(crate) fn address(&self, place: usize) -> SocketAddr {
        self.instances[place].config.listen
    }

    /// A client of one instance, over the connection that all tests of it share.
    pub(crate) fn client(&self, place: usize) -> Client {
        self.instances[place].client.clone()
    }

    /// A client of one instance, over a connection of its own.
    pub(crate) fn another_client(&self, place: usize) -> Client {
        Client::new(self.address(place))
    }

    /// A client of one instance, over a connection of its own on which little may be on its way.
    pub(crate) fn narrow_client(&self, place: usize) -> Client {
        Client::narrow(self.address(place))
    }

    /// Tells an instance to shut down, without waiting.
    pub(crate) fn shut_down(&self, place: usize) {
        self.instances[place].stop.cancel();
    }

    /// Waits until an instance that was told so has shut down.
    pub(crate) async fn ended(&mut self, place: usize) {
        self.instances[place].served.take().unwrap().await.unwrap();
    }

    /// A hand in Redis, beside the service.
    pub(crate) async fn redis(&self) -> Tampering {
        Tampering::connect(self.stack.redis(), &self.prefix).await
    }
}

impl Deref for Broadcasts<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.instances[0].client
    }
}

impl Instance {
    async fn start(mut config: Config) -> Self {
        let listener = TcpListener::bind(config.listen).await.unwrap();
        config.listen = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tidings_broadcast::serve(config.clone(), listener, stop.clone());
        let served = tokio::spawn(async { serving.await.unwrap() });
        let client = Client::new(config.listen);
        let instance = Self { config, client, stop, served: Some(served) };
        instance.client.reachable().await;
        instance
    }
}

/// A Redis that a test may kill.
pub(crate) async fn own_stack() -> Devstack {
    Devstack::start(Options::temporary()).await.unwrap()
}

/// Asks again and again until it holds.
///
/// # Panics
///
/// If it does not within [`PATIENCE`].
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
