//! Test support: instances of the history service in this process, on a database and a key prefix
//! of their own.

pub(crate) mod client;
pub(crate) mod fake_broadcast;
pub(crate) mod redis;

use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Duration;

use tidings_devstack::Devstack;
use tidings_devstack::testing::{self, eventually};
use tidings_history::config::{RelayArgs, TailArgs};
use tidings_history::model::{ConversationId, MessageSlice};
use tidings_history::store::Store;
use tidings_history::{Config, MIGRATOR, wire};
use tidings_postgres::Postgres;
use tidings_proto::history as pb;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::client::HistoryClient;
use self::redis::HistoryRedis;

/// Instances of the service on one database and one key prefix. Dereferences to the client of the
/// first instance.
pub(crate) struct HistoryCluster<'a> {
    pub(crate) stack: &'a Devstack,
    pub(crate) database: String,
    pub(crate) prefix: String,
    instances: Vec<HistoryInstance>,
}

struct HistoryInstance {
    config: Config,
    client: HistoryClient,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl HistoryCluster<'static> {
    /// Starts one instance on the servers that all tests share.
    pub(crate) async fn start() -> Self {
        Self::start_on(testing::shared().await, 1, |_, _| {}).await
    }

    /// Starts two instances on the servers that all tests share.
    pub(crate) async fn start_two() -> Self {
        Self::start_on(testing::shared().await, 2, |_, _| {}).await
    }

    /// Starts three instances on the servers that all tests share.
    pub(crate) async fn start_three() -> Self {
        Self::start_on(testing::shared().await, 3, |_, _| {}).await
    }
}

impl<'a> HistoryCluster<'a> {
    /// Starts instances on `stack`; `tune` changes the settings of each, by its index.
    pub(crate) async fn start_on(stack: &'a Devstack, instances: usize, tune: impl Fn(usize, &mut Config)) -> Self {
        let mut cluster = Self::without_instances(stack).await;
        cluster.start_instances(instances, tune).await;
        cluster
    }

    /// Starts instances that never relay: a worker that does not exist has all shards.
    pub(crate) async fn start_without_relay(
        stack: &'a Devstack,
        instances: usize,
        tune: impl Fn(usize, &mut Config),
    ) -> Self {
        let mut cluster = Self::without_instances(stack).await;
        cluster.execute("UPDATE relay_shard SET worker = 'nobody', lease_until = 'infinity'").await;
        cluster.start_instances(instances, tune).await;
        cluster
    }

    async fn without_instances(stack: &'a Devstack) -> Self {
        let database = testing::database(stack, &MIGRATOR, "history").await;
        Self { stack, database, prefix: testing::key_prefix(), instances: Vec::new() }
    }

    async fn start_instances(&mut self, instances: usize, tune: impl Fn(usize, &mut Config)) {
        for index in 0..instances {
            let mut config = self.config();
            tune(index, &mut config);
            self.instances.push(HistoryInstance::start(config).await);
        }
    }

    /// Default settings with longer timeouts: a debug build on a busy machine is slow, which is no
    /// outage.
    fn config(&self) -> Config {
        let mut postgres = tidings_postgres::Args::new(self.database.parse().unwrap());
        postgres.postgres_connections = 8;
        postgres.postgres_acquire_timeout = Duration::from_secs(5).into();
        let mut redis = tidings_redis::Args::new(self.stack.redis().url().parse().unwrap());
        redis.redis_prefix.clone_from(&self.prefix);
        redis.redis_timeout = Some(Duration::from_secs(1).into());
        redis.redis_connect_timeout = Duration::from_secs(1).into();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = tidings_server::Args { lame_duck: Duration::ZERO.into(), ..Default::default() };
        let (tails, relay) = (TailArgs::default(), RelayArgs::default());
        Config { listen, migrate: false, postgres, redis, server, tails, relay }
    }

    /// Returns the address of one instance.
    pub(crate) fn address(&self, index: usize) -> SocketAddr {
        self.instances[index].config.listen
    }

    /// Returns a client of one instance. It reconnects after a restart of the instance.
    pub(crate) fn client(&self, index: usize) -> HistoryClient {
        self.instances[index].client.clone()
    }

    /// Aborts an instance at any point of its work, and restarts it at the same address.
    pub(crate) async fn crash(&mut self, index: usize) {
        self.instances[index].served.abort();
        self.restart(index).await;
    }

    /// Stops an instance gracefully, and restarts it at the same address.
    pub(crate) async fn restart(&mut self, index: usize) {
        let instance = &mut self.instances[index];
        instance.stop.cancel();
        let _ = (&mut instance.served).await;
        (instance.stop, instance.served) = serve(&instance.config, instance.config.listen).await;
    }

    /// Reads all messages of a conversation from Postgres, and checks their seqs and times.
    pub(crate) async fn truth(&self, conversation: &str) -> Vec<pb::Message> {
        let postgres = Postgres::connect(&self.config().postgres, "test").await.unwrap();
        let store = Store::new(postgres);
        let id = ConversationId::new(conversation.to_owned());
        let MessageSlice { messages, last_seq } = store.messages.after(&id, 0, 100_000).await.unwrap().unwrap();
        store.close().await;
        let messages: Vec<_> = messages.into_iter().map(wire::message).collect();
        assert_numbered_from(1, &messages);
        assert_eq!(last_seq, messages.len() as i64);
        messages
    }

    /// Runs a query that returns one number.
    pub(crate) async fn count(&self, query: &'static str) -> i64 {
        testing::query_number(&self.database, query).await
    }

    /// Updates the planner statistics of Postgres, as autovacuum would in time.
    pub(crate) async fn analyze(&self) {
        self.execute("ANALYZE").await;
    }

    /// Executes a statement in Postgres.
    pub(crate) async fn execute(&self, statement: &'static str) {
        testing::execute(&self.database, statement).await;
    }

    /// Returns the number of message rows that backends read; a backend reports them when it exits.
    pub(crate) async fn messages_read(&self) -> i64 {
        self.count(
            "SELECT sum(coalesce(idx_tup_fetch, 0) + coalesce(seq_tup_read, 0))::bigint
             FROM pg_stat_user_tables
             WHERE relname LIKE 'message%'",
        )
        .await
    }

    /// Waits until the outbox is empty: tails and broadcast have all messages.
    pub(crate) async fn wait_until_relayed(&self) {
        eventually("the outbox is empty", async || self.count("SELECT count(*) FROM outbox").await == 0).await;
    }

    /// Opens a direct connection to the Redis of the service.
    pub(crate) async fn redis(&self) -> HistoryRedis {
        let (sender, source) = std::sync::mpsc::channel();
        let postgres = Postgres::closed(&self.config().postgres, "test");
        postgres.on_incarnation(move |incarnation| sender.send(incarnation.to_owned()).unwrap());
        postgres.open().await.unwrap();
        HistoryRedis::connect(self.stack.redis(), &self.prefix, &source.recv().unwrap()).await
    }
}

impl Deref for HistoryCluster<'_> {
    type Target = HistoryClient;

    fn deref(&self) -> &HistoryClient {
        &self.instances[0].client
    }
}

impl HistoryInstance {
    async fn start(mut config: Config) -> Self {
        let listener = TcpListener::bind(config.listen).await.unwrap();
        config.listen = listener.local_addr().unwrap();
        drop(listener);
        let (stop, served) = serve(&config, config.listen).await;
        let client = HistoryClient::new(config.listen);
        Self { config, client, stop, served }
    }
}

async fn serve(config: &Config, address: SocketAddr) -> (CancellationToken, JoinHandle<()>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let stop = CancellationToken::new();
    let serving = tidings_history::serve(config.clone(), listener, stop.clone());
    let served = tokio::spawn(async { serving.await.unwrap() });
    (stop, served)
}

/// Returns the seqs of messages.
pub(crate) fn seqs(messages: &[pb::Message]) -> Vec<i64> {
    messages.iter().map(|message| message.seq).collect()
}

/// Checks that seqs begin with `first` and have no gap, and that times never decrease.
pub(crate) fn assert_numbered_from(first: i64, messages: &[pb::Message]) {
    let expected: Vec<i64> = (first..).take(messages.len()).collect();
    assert_eq!(seqs(messages), expected);
    let times: Vec<_> = messages.iter().map(|message| message.create_time.unwrap()).collect();
    assert!(times.is_sorted_by_key(|time| (time.seconds, time.nanos)), "times decrease: {times:?}");
}

/// Checks that a page has no gap.
pub(crate) fn assert_contiguous(page: &pb::ListMessagesResponse) {
    if let Some(first) = page.messages.first() {
        assert_numbered_from(first.seq, &page.messages);
    }
}
