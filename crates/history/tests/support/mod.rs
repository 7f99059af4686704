//! The history service in process, one or several instances on a database and a key prefix of their own.

pub(crate) mod broadcaster;
pub(crate) mod client;
pub(crate) mod redis;

use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tidings_devstack::{Devstack, Options, testing};
use tidings_history::config::{RelayArgs, TailArgs};
use tidings_history::model::ConversationId;
use tidings_history::store::Store;
use tidings_history::{Config, MIGRATOR, wire};
use tidings_postgres::Postgres;
use tidings_proto::history as pb;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::client::Client;
use self::redis::Tampering;

/// Longest wait for what must come true: generous, for a debug build on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// So long that a test does not see it happen.
pub(crate) const NEVER: Duration = Duration::from_hours(1);

/// Some instances of the service on one database and one key prefix; as a [`Client`], it is that of the first.
pub(crate) struct Histories<'a> {
    pub(crate) stack: &'a Devstack,
    pub(crate) database: String,
    pub(crate) prefix: String,
    instances: Vec<Instance>,
}

struct Instance {
    config: Config,
    client: Client,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl Histories<'static> {
    /// One instance on the servers that all tests share.
    pub(crate) async fn start() -> Self {
        Self::start_on(testing::shared().await, 1, |_, _| {}).await
    }

    /// Two instances on the servers that all tests share.
    pub(crate) async fn start_two() -> Self {
        Self::start_on(testing::shared().await, 2, |_, _| {}).await
    }

    /// Three instances on the servers that all tests share.
    pub(crate) async fn start_three() -> Self {
        Self::start_on(testing::shared().await, 3, |_, _| {}).await
    }
}

impl<'a> Histories<'a> {
    /// Instances whose settings are tuned, each by its place.
    pub(crate) async fn start_on(stack: &'a Devstack, instances: usize, tune: impl Fn(usize, &mut Config)) -> Self {
        let database = testing::database(stack, &MIGRATOR, "history").await;
        let prefix = testing::key_prefix();
        let mut histories = Self { stack, database, prefix, instances: Vec::new() };
        for place in 0..instances {
            let mut config = histories.config();
            tune(place, &mut config);
            histories.instances.push(Instance::start(config).await);
        }
        histories
    }

    /// The defaults, but patient: a debug build on a busy machine is slow and yet no outage.
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

    /// The address of one instance.
    pub(crate) fn address(&self, place: usize) -> SocketAddr {
        self.instances[place].config.listen
    }

    /// A client of one instance; it reconnects when the instance is started again.
    pub(crate) fn client(&self, place: usize) -> Client {
        self.instances[place].client.clone()
    }

    /// Cuts an instance off in the middle of what it does, and starts it again at the same address.
    pub(crate) async fn crash(&mut self, place: usize) {
        self.instances[place].served.abort();
        self.restart(place).await;
    }

    /// Stops an instance in order, and starts it again at the same address.
    pub(crate) async fn restart(&mut self, place: usize) {
        let instance = &mut self.instances[place];
        instance.stop.cancel();
        let _ = (&mut instance.served).await;
        (instance.stop, instance.served) = serve(&instance.config, instance.config.listen).await;
    }

    /// What Postgres has of a conversation.
    pub(crate) async fn truth(&self, conversation: &str) -> Vec<pb::Message> {
        let postgres = Postgres::connect(&self.config().postgres, "test").await.unwrap();
        let store = Store::new(postgres);
        let id = ConversationId::new(conversation.to_owned());
        let (last_seq, messages) = store.messages.after(&id, 0, 100_000).await.unwrap().unwrap();
        store.close().await;
        let messages: Vec<_> = messages.into_iter().map(wire::message).collect();
        assert_numbered_from(1, &messages);
        assert_eq!(last_seq, messages.len() as i64);
        messages
    }

    /// The answer of Postgres to a question about numbers.
    pub(crate) async fn count(&self, query: &'static str) -> i64 {
        let mut connection = PgConnection::connect(&self.database).await.unwrap();
        let count = sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        count
    }

    /// Lets Postgres learn how much there is of everything, as it would by itself in time.
    pub(crate) async fn analyze(&self) {
        self.tell("ANALYZE").await;
    }

    /// Lets Postgres do something.
    pub(crate) async fn tell(&self, statement: &'static str) {
        let mut connection = PgConnection::connect(&self.database).await.unwrap();
        sqlx::query(statement).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// How many messages Postgres has read, by backends that ended.
    pub(crate) async fn messages_read(&self) -> i64 {
        self.count(
            "SELECT sum(coalesce(idx_tup_fetch, 0) + coalesce(seq_tup_read, 0))::bigint
             FROM pg_stat_user_tables
             WHERE relname LIKE 'message%'",
        )
        .await
    }

    /// Waits until tails and broadcast have heard of everything.
    pub(crate) async fn settled(&self) {
        eventually("the outbox is empty", async || self.count("SELECT count(*) FROM outbox").await == 0).await;
    }

    /// A hand in Redis, beside the service.
    pub(crate) async fn redis(&self) -> Tampering {
        Tampering::connect(self.stack.redis(), &self.prefix).await
    }
}

impl Deref for Histories<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.instances[0].client
    }
}

impl Instance {
    async fn start(mut config: Config) -> Self {
        let listener = TcpListener::bind(config.listen).await.unwrap();
        config.listen = listener.local_addr().unwrap();
        drop(listener);
        let (stop, served) = serve(&config, config.listen).await;
        let client = Client::new(config.listen);
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

/// A Postgres and a Redis that a test may kill.
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

/// The numbers of messages.
pub(crate) fn seqs(messages: &[pb::Message]) -> Vec<i64> {
    messages.iter().map(|message| message.seq).collect()
}

/// Checks that numbers begin with `first` and have no hole, and that times do not go back.
pub(crate) fn assert_numbered_from(first: i64, messages: &[pb::Message]) {
    let expected: Vec<i64> = (first..).take(messages.len()).collect();
    assert_eq!(seqs(messages), expected);
    let times: Vec<_> = messages.iter().map(|message| message.create_time.unwrap()).collect();
    assert!(times.is_sorted_by_key(|time| (time.seconds, time.nanos)), "times go back: {times:?}");
}

/// Checks that a page has no hole.
pub(crate) fn assert_whole(page: &pb::ListMessagesResponse) {
    if let Some(first) = page.messages.first() {
        assert_numbered_from(first.seq, &page.messages);
    }
}
