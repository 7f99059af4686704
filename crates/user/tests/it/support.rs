//! The service in process, between servers of the test's choice, and calls to it that read as sentences.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tidings_devstack::{Devstack, Options, testing};
use tidings_proto::user as pb;
use tidings_proto::user::read_info::Source;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_status::Failure;
use tidings_user::Config;
use tidings_user::config::{CacheArgs, WatchArgs};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Response;
use tonic::transport::{Channel, Endpoint};

#[path = "requests.rs"] // this file is also a module of the other test binary
mod requests;

pub(crate) use self::requests::{changing, handled, named, renaming};

/// Longest wait for anything that shall happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// What a test takes that is not about time-outs: a debug build on a busy machine is slow.
const REDIS_TIMEOUT: Duration = Duration::from_millis(500);
/// So long that nothing is relayed within a test.
pub(crate) const NEVER: Duration = Duration::from_hours(1);

/// A database and a key prefix of the test's own, on servers that it shares or has for itself.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) own: Option<Arc<Devstack>>,
    pub(crate) shared: Option<&'static Devstack>,
    pub(crate) postgres_url: String,
    pub(crate) redis_url: String,
    pub(crate) prefix: String,
}

impl World {
    /// On the servers that the tests of this process share: nobody stops them.
    pub(crate) async fn shared() -> Self {
        let stack = testing::shared().await;
        Self::on(stack, None, Some(stack)).await
    }

    /// On servers that the test may kill.
    pub(crate) async fn own() -> Self {
        let stack = Arc::new(Devstack::start(Options::temporary()).await.unwrap());
        Self::on(&stack, Some(Arc::clone(&stack)), None).await
    }

    async fn on(stack: &Devstack, own: Option<Arc<Devstack>>, shared: Option<&'static Devstack>) -> Self {
        let postgres_url = testing::database(stack, &tidings_user::MIGRATOR, "user").await;
        let redis_url = stack.redis().url();
        Self { own, shared, postgres_url, redis_url, prefix: testing::key_prefix() }
    }

    /// The servers of the test's own.
    pub(crate) fn stack(&self) -> &Devstack {
        self.own.as_deref().or(self.shared).unwrap()
    }

    /// An instance of the service.
    pub(crate) async fn serve(&self) -> Users {
        self.serve_with(|_| {}).await
    }

    /// An instance whose relay has done its only step: what the cache hears from now on it hears from calls.
    pub(crate) async fn serve_without_relay(&self) -> Users {
        self.serve_without_relay_with(|_| {}).await
    }

    /// The same with settings that differ from the usual.
    pub(crate) async fn serve_without_relay_with(&self, tune: impl FnOnce(&mut Config)) -> Users {
        self.execute("INSERT INTO cache_outbox (user_id) VALUES ('nobody')").await;
        let users = self
            .serve_with(|config| {
                no_relay(config);
                tune(config);
            })
            .await;
        eventually("the relay has done its only step", SOON, async || self.outbox("nobody").await == 0).await;
        users
    }

    /// An instance that keeps profiles in its memory, and hears already when they change.
    pub(crate) async fn serve_near(&self) -> Users {
        self.serve_near_with(|_| {}).await
    }

    /// The same, with settings that differ from the usual.
    pub(crate) async fn serve_near_with(&self, tune: impl FnOnce(&mut Config)) -> Users {
        let users = self
            .serve_with(|config| {
                config.cache.user_near_bytes = CacheArgs::default().user_near_bytes;
                tune(config);
            })
            .await;
        users.remembers().await;
        users
    }

    /// An instance whose settings differ from the usual.
    pub(crate) async fn serve_with(&self, tune: impl FnOnce(&mut Config)) -> Users {
        let mut config = self.config();
        tune(&mut config);
        Users::start_with(config).await
    }

    /// The usual settings.
    pub(crate) fn config(&self) -> Config {
        let mut redis = tidings_redis::Args::new(self.redis_url.parse().unwrap());
        redis.redis_prefix.clone_from(&self.prefix);
        redis.redis_timeout = Some(REDIS_TIMEOUT.into());
        redis.redis_connect_timeout = (2 * REDIS_TIMEOUT).into();
        let mut postgres = tidings_postgres::Args::new(self.postgres_url.parse().unwrap());
        postgres.postgres_acquire_timeout = Duration::from_secs(3).into();
        let server = tidings_server::Args {
            lame_duck: Duration::ZERO.into(),
            drain: Duration::from_secs(1).into(),
            ..Default::default()
        };
        let listen = "127.0.0.1:0".parse().unwrap();
        // Most tests are about Redis, which is asked only if nobody remembers.
        let cache = CacheArgs { user_near_bytes: 0, ..CacheArgs::default() };
        Config { listen, migrate: false, postgres, redis, server, cache, watches: WatchArgs::default() }
    }

    pub(crate) async fn sql(&self) -> PgConnection {
        PgConnection::connect(&self.postgres_url).await.unwrap()
    }

    /// One number out of Postgres.
    pub(crate) async fn count(&self, query: &str) -> i64 {
        let query = sqlx::query_scalar(AssertSqlSafe(query.to_owned()));
        query.fetch_one(&mut self.sql().await).await.unwrap()
    }

    pub(crate) async fn execute(&self, statement: &str) {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut self.sql().await).await.unwrap();
    }

    /// How much the cache has yet to hear of one user.
    pub(crate) async fn outbox(&self, id: &str) -> i64 {
        self.count(&format!("SELECT count(*) FROM cache_outbox WHERE user_id = '{id}'")).await
    }

    /// How often anybody looked into `user_account`. Exact when the instances of the service have ended.
    pub(crate) async fn looks_at_accounts(&self) -> i64 {
        let busy =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        eventually("all backends have told what they did", SOON, async || self.count(busy).await == 0).await;
        self.count("SELECT idx_scan + seq_scan FROM pg_stat_user_tables WHERE relname = 'user_account'").await
    }

    /// Lets Postgres write each statement into its log from now on.
    pub(crate) async fn log_statements(&self) {
        self.execute("ALTER SYSTEM SET log_statement = 'all'").await;
        self.execute("SELECT pg_reload_conf()").await;
        let told = "SELECT count(*) FROM pg_settings WHERE name = 'log_statement' AND setting = 'all'";
        eventually("statements are written down", SOON, async || self.count(told).await == 1).await;
    }

    pub(crate) fn redis(&self) -> redis::Connection {
        redis::Client::open(self.redis_url.as_str()).unwrap().get_connection().unwrap()
    }

    /// What is in Redis of one kind, `u` (values) or `l` (leases), under one id.
    pub(crate) fn keys(&self, kind: &str, id: &str) -> Vec<String> {
        let pattern = format!("{}:user:*:{kind}:{{{id}}}", self.prefix);
        redis::cmd("KEYS").arg(pattern).query(&mut self.redis()).unwrap()
    }

    /// Takes away what is in Redis of one kind under one id, as an eviction would. Says whether there was anything.
    pub(crate) fn evict(&self, kind: &str, id: &str) -> bool {
        let keys = self.keys(kind, id);
        for key in &keys {
            redis::cmd("DEL").arg(key).exec(&mut self.redis()).unwrap();
        }
        !keys.is_empty()
    }

    /// Whether Redis has a value under an id.
    pub(crate) fn cached(&self, id: &str) -> bool {
        !self.keys("u", id).is_empty()
    }
}

/// Lets the relay of an instance do one step, and no other for as long as a test takes.
pub(crate) fn no_relay(config: &mut Config) {
    config.cache.user_relay_tick = NEVER.into();
    config.cache.user_relay_gather = NEVER.into();
}

/// A running instance of the service, with a client. It ends when it is dropped.
pub(crate) struct Users {
    client: UserServiceClient<Channel>,
    pub(crate) address: SocketAddr,
    stop: DropGuard,
    serving: JoinHandle<()>,
}

impl Users {
    /// One instance on the shared servers.
    pub(crate) async fn start() -> Self {
        World::shared().await.serve().await
    }

    /// Two instances on one database and one key prefix.
    pub(crate) async fn start_two() -> (Self, Self) {
        let world = World::shared().await;
        (world.serve().await, world.serve().await)
    }

    async fn start_with(config: Config) -> Self {
        let listener = TcpListener::bind(config.listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tidings_user::serve(config, listener, stop.clone());
        Self::running(address, stop, tokio::spawn(async { serving.await.unwrap() })).await
    }

    /// Whoever serves the contract at an address until it is stopped.
    pub(crate) async fn running(address: SocketAddr, stop: CancellationToken, serving: JoinHandle<()>) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.connect().await.unwrap();
        Self { client: UserServiceClient::new(channel), address, stop: stop.drop_guard(), serving }
    }

    /// Ends the instance and waits until it has ended.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        self.serving.await.unwrap();
    }

    /// Whom to call; each caller needs a clone.
    pub(crate) fn client(&self) -> UserServiceClient<Channel> {
        self.client.clone()
    }

    pub(crate) async fn call_create(&self, request: pb::CreateUserRequest) -> Result<pb::CreateUserResponse, Failure> {
        told(self.client().create_user(request).await)
    }

    pub(crate) async fn call_get(&self, request: pb::GetUserRequest) -> Result<pb::GetUserResponse, Failure> {
        told(self.client().get_user(request).await)
    }

    pub(crate) async fn call_batch(
        &self,
        request: pb::BatchGetUsersRequest,
    ) -> Result<Vec<pb::BatchGetUsersResult>, Failure> {
        told(self.client().batch_get_users(request).await).map(|response| response.results)
    }

    pub(crate) async fn call_update(&self, request: pb::UpdateUserRequest) -> Result<pb::User, Failure> {
        told(self.client().update_user(request).await).map(|response| response.user.unwrap())
    }

    pub(crate) async fn call_delete(&self, request: pb::DeleteUserRequest) -> Result<pb::DeleteUserResponse, Failure> {
        told(self.client().delete_user(request).await)
    }

    /// Creates a user of this id who is shown as `first`.
    pub(crate) async fn create(&self, id: &str) -> Result<pb::User, Failure> {
        let request = pb::CreateUserRequest { user: Some(named(id, "first")), ..Default::default() };
        self.call_create(request).await.map(|response| response.user.unwrap())
    }

    /// A plain read.
    pub(crate) async fn get(&self, id: &str) -> Result<Answer, Failure> {
        self.get_at_least(id, 0).await
    }

    /// A read with `min_version`.
    pub(crate) async fn get_at_least(&self, id: &str, min_version: i64) -> Result<Answer, Failure> {
        let request = pb::GetUserRequest { id: id.to_owned(), min_version, ..Default::default() };
        self.call_get(request).await.map(Answer::from)
    }

    /// A read past the cache.
    pub(crate) async fn get_strong(&self, id: &str) -> Result<Answer, Failure> {
        let consistency = pb::Consistency::Strong.into();
        let request = pb::GetUserRequest { id: id.to_owned(), consistency, ..Default::default() };
        self.call_get(request).await.map(Answer::from)
    }

    /// A plain read by handle.
    pub(crate) async fn by_handle(&self, handle: &str) -> Result<Answer, Failure> {
        self.call_by_handle(pb::GetUserByHandleRequest { handle: handle.to_owned(), ..Default::default() }).await
    }

    pub(crate) async fn call_by_handle(&self, request: pb::GetUserByHandleRequest) -> Result<Answer, Failure> {
        told(self.client().get_user_by_handle(request).await).map(Answer::from)
    }

    pub(crate) async fn call_list(&self, request: pb::ListUsersRequest) -> Result<pb::ListUsersResponse, Failure> {
        told(self.client().list_users(request).await)
    }

    /// Creates a user who has a handle.
    pub(crate) async fn create_with_handle(&self, id: &str, handle: &str) -> Result<pb::User, Failure> {
        let request = pb::CreateUserRequest { user: Some(handled(id, handle)), ..Default::default() };
        self.call_create(request).await.map(|response| response.user.unwrap())
    }

    /// Changes the handle; an empty one gives it up.
    pub(crate) async fn take_handle(&self, id: &str, handle: &str) -> Result<pb::User, Failure> {
        self.call_update(changing(handled(id, handle), &["handle"])).await
    }

    /// Plain reads of many, in one call.
    pub(crate) async fn batch<T: ToString>(&self, ids: &[T]) -> Result<Vec<pb::BatchGetUsersResult>, Failure> {
        let ids = ids.iter().map(ToString::to_string).collect();
        self.call_batch(pb::BatchGetUsersRequest { ids, ..Default::default() }).await
    }

    /// Changes the name that is shown.
    pub(crate) async fn rename(&self, id: &str, display_name: &str) -> Result<pb::User, Failure> {
        self.call_update(renaming(id, display_name)).await
    }

    pub(crate) async fn delete(&self, id: &str) -> Result<pb::DeleteUserResponse, Failure> {
        self.call_delete(pb::DeleteUserRequest { id: id.to_owned(), ..Default::default() }).await
    }

    /// Waits until the instance answers out of its memory, with what may be no user at all.
    pub(crate) async fn remembers(&self) {
        let probe = format!("probe-{}", uuid::Uuid::new_v4());
        let request = pb::BatchGetUsersRequest { ids: vec![probe], ..Default::default() };
        eventually("the instance remembers", SOON, async || {
            let results = self.call_batch(request.clone()).await.unwrap_or_default();
            results.iter().any(|result| result.read_info.is_some_and(|info| info.source() == Source::Near))
        })
        .await;
    }

    /// Reads a user until the memory of the instance answers.
    pub(crate) async fn remember(&self, id: &str) {
        let what = format!("{id} is in memory");
        eventually(&what, SOON, async || self.get(id).await.unwrap().source == Source::Near).await;
    }

    /// Reads a user until the cache answers.
    pub(crate) async fn cache(&self, id: &str) {
        let what = format!("{id} is cached");
        eventually(&what, SOON, async || self.get(id).await.unwrap().source == Source::Redis).await;
    }
}

/// What a read said.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) user: pb::User,
    pub(crate) version: i64,
    pub(crate) source: Source,
    pub(crate) stale: bool,
}

impl From<pb::GetUserResponse> for Answer {
    fn from(response: pb::GetUserResponse) -> Self {
        let (user, info) = (response.user.unwrap(), response.read_info.unwrap());
        Self { version: user.version, source: info.source(), stale: info.stale, user }
    }
}

impl From<pb::GetUserByHandleResponse> for Answer {
    fn from(response: pb::GetUserByHandleResponse) -> Self {
        let pb::GetUserByHandleResponse { user, read_info } = response;
        Self::from(pb::GetUserResponse { user, read_info })
    }
}

/// What a caller hears, its details read.
#[expect(clippy::result_large_err, reason = "a test has few of them")]
pub(crate) fn told<T>(answer: tonic::Result<Response<T>>) -> Result<T, Failure> {
    answer.map(Response::into_inner).map_err(|status| Failure::from(&status))
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, patience: Duration, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
