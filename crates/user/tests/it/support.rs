//! Instances of the service in this process, their servers, and short forms of calls.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};
use tidings_devstack::{Devstack, testing};
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

pub(crate) use tidings_devstack::testing::NEVER;

#[path = "requests.rs"] // this file is also a module of the other test binary
mod requests;

pub(crate) use self::requests::{changing, handled, named, renaming};

/// Longest wait for a condition that should hold soon.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// Redis timeout of tests that do not test timeouts: a debug build on a busy machine is slow.
const REDIS_TIMEOUT: Duration = Duration::from_millis(500);

/// A database and a key prefix for one test, on shared or dedicated servers.
#[derive(Clone)]
pub(crate) struct TestEnv {
    pub(crate) own: Option<Arc<Devstack>>,
    pub(crate) shared: Option<&'static Devstack>,
    pub(crate) postgres_url: String,
    pub(crate) redis_url: String,
    pub(crate) prefix: String,
}

impl TestEnv {
    /// Uses the servers that the tests of this process share; a test must not stop them.
    pub(crate) async fn shared() -> Self {
        let stack = testing::shared().await;
        Self::on(stack, None, Some(stack)).await
    }

    /// Starts dedicated servers, which the test may kill.
    pub(crate) async fn own() -> Self {
        let stack = Arc::new(testing::own_stack().await);
        Self::on(&stack, Some(Arc::clone(&stack)), None).await
    }

    async fn on(stack: &Devstack, own: Option<Arc<Devstack>>, shared: Option<&'static Devstack>) -> Self {
        let postgres_url = testing::database(stack, &tidings_user::MIGRATOR, "user").await;
        let redis_url = stack.redis().url();
        Self { own, shared, postgres_url, redis_url, prefix: testing::key_prefix() }
    }

    /// The servers of this environment.
    pub(crate) fn stack(&self) -> &Devstack {
        self.own.as_deref().or(self.shared).unwrap()
    }

    /// Starts an instance of the service.
    pub(crate) async fn serve(&self) -> UserInstance {
        self.serve_with(|_| {}).await
    }

    /// Starts an instance whose relay has run its only step: from now on only calls update the
    /// cache.
    pub(crate) async fn serve_without_relay(&self) -> UserInstance {
        self.serve_without_relay_with(|_| {}).await
    }

    /// Like [`TestEnv::serve_without_relay`], with changed settings.
    pub(crate) async fn serve_without_relay_with(&self, tune: impl FnOnce(&mut Config)) -> UserInstance {
        self.execute("INSERT INTO cache_outbox (user_id) VALUES ('nobody')").await;
        let users = self
            .serve_with(|config| {
                no_relay(config);
                tune(config);
            })
            .await;
        eventually("the relay has run its only step", SOON, async || self.outbox("nobody").await == 0).await;
        users
    }

    /// Starts an instance with a local cache, and waits for its tracking session.
    pub(crate) async fn serve_from_local_cache(&self) -> UserInstance {
        self.serve_from_local_cache_with(|_| {}).await
    }

    /// Like [`TestEnv::serve_from_local_cache`], with changed settings.
    pub(crate) async fn serve_from_local_cache_with(&self, tune: impl FnOnce(&mut Config)) -> UserInstance {
        let users = self
            .serve_with(|config| {
                config.cache.user_local_cache_bytes = CacheArgs::default().user_local_cache_bytes;
                tune(config);
            })
            .await;
        users.wait_for_local_cache().await;
        users
    }

    /// Starts an instance with changed settings.
    pub(crate) async fn serve_with(&self, tune: impl FnOnce(&mut Config)) -> UserInstance {
        let mut config = self.config();
        tune(&mut config);
        UserInstance::start_with(config).await
    }

    /// The default settings of these tests.
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
        // Most tests are about Redis, which a local cache would hide.
        let cache = CacheArgs { user_local_cache_bytes: 0, ..CacheArgs::default() };
        Config { listen, migrate: false, postgres, redis, server, cache, watches: WatchArgs::default() }
    }

    pub(crate) async fn sql(&self) -> PgConnection {
        PgConnection::connect(&self.postgres_url).await.unwrap()
    }

    /// Returns the one integer that a query selects.
    pub(crate) async fn count(&self, query: &str) -> i64 {
        testing::query_number(&self.postgres_url, query).await
    }

    pub(crate) async fn execute(&self, statement: &str) {
        testing::execute(&self.postgres_url, statement).await;
    }

    /// Number of outbox rows of a user.
    pub(crate) async fn outbox(&self, id: &str) -> i64 {
        self.count(&format!("SELECT count(*) FROM cache_outbox WHERE user_id = '{id}'")).await
    }

    /// Number of scans of `user_account`. Exact once the instances of the service have ended.
    pub(crate) async fn account_scans(&self) -> i64 {
        let busy =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        eventually("all backends have reported their statistics", SOON, async || self.count(busy).await == 0).await;
        self.count("SELECT idx_scan + seq_scan FROM pg_stat_user_tables WHERE relname = 'user_account'").await
    }

    /// Makes Postgres log each statement from now on.
    pub(crate) async fn log_statements(&self) {
        self.execute("ALTER SYSTEM SET log_statement = 'all'").await;
        self.execute("SELECT pg_reload_conf()").await;
        let enabled = "SELECT count(*) FROM pg_settings WHERE name = 'log_statement' AND setting = 'all'";
        eventually("statements are logged", SOON, async || self.count(enabled).await == 1).await;
    }

    pub(crate) fn redis(&self) -> redis::Connection {
        redis::Client::open(self.redis_url.as_str()).unwrap().get_connection().unwrap()
    }

    /// Returns the keys in Redis of one kind, `u` (values), `l` (leases) or `h` (hints), for one id
    /// or handle.
    pub(crate) fn keys(&self, kind: &str, id: &str) -> Vec<String> {
        let pattern = format!("{}:user:*:{kind}:{{{id}}}", self.prefix);
        redis::cmd("KEYS").arg(pattern).query(&mut self.redis()).unwrap()
    }

    /// Deletes the keys in Redis of one kind for one id, like an eviction. Returns true if there
    /// were any.
    pub(crate) fn evict(&self, kind: &str, id: &str) -> bool {
        let keys = self.keys(kind, id);
        for key in &keys {
            redis::cmd("DEL").arg(key).exec(&mut self.redis()).unwrap();
        }
        !keys.is_empty()
    }

    /// Returns true if Redis has a value for an id.
    pub(crate) fn cached(&self, id: &str) -> bool {
        !self.keys("u", id).is_empty()
    }
}

/// Lets the relay of an instance run its first step and no other.
pub(crate) fn no_relay(config: &mut Config) {
    config.cache.user_relay_tick = NEVER.into();
    config.cache.user_relay_gather = NEVER.into();
}

/// A running instance of the service, with a client. It stops when it is dropped.
pub(crate) struct UserInstance {
    client: UserServiceClient<Channel>,
    pub(crate) address: SocketAddr,
    stop: DropGuard,
    serving: JoinHandle<()>,
}

impl UserInstance {
    /// Starts one instance on the shared servers.
    pub(crate) async fn start() -> Self {
        TestEnv::shared().await.serve().await
    }

    /// Starts two instances on one database and one key prefix.
    pub(crate) async fn start_two() -> (Self, Self) {
        let env = TestEnv::shared().await;
        (env.serve().await, env.serve().await)
    }

    async fn start_with(config: Config) -> Self {
        let listener = TcpListener::bind(config.listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tidings_user::serve(config, listener, stop.clone());
        Self::running(address, stop, tokio::spawn(async { serving.await.unwrap() })).await
    }

    /// Connects to a running server of the contract, which `stop` stops.
    pub(crate) async fn running(address: SocketAddr, stop: CancellationToken, serving: JoinHandle<()>) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.connect().await.unwrap();
        Self { client: UserServiceClient::new(channel), address, stop: stop.drop_guard(), serving }
    }

    /// Stops the instance and waits for its end.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        self.serving.await.unwrap();
    }

    /// Returns a client for one caller.
    pub(crate) fn client(&self) -> UserServiceClient<Channel> {
        self.client.clone()
    }

    pub(crate) async fn call_create(&self, request: pb::CreateUserRequest) -> Result<pb::CreateUserResponse, Failure> {
        into_result(self.client().create_user(request).await)
    }

    pub(crate) async fn call_get(&self, request: pb::GetUserRequest) -> Result<pb::GetUserResponse, Failure> {
        into_result(self.client().get_user(request).await)
    }

    pub(crate) async fn call_batch(
        &self,
        request: pb::BatchGetUsersRequest,
    ) -> Result<Vec<pb::BatchGetUsersResult>, Failure> {
        into_result(self.client().batch_get_users(request).await).map(|response| response.results)
    }

    pub(crate) async fn call_update(&self, request: pb::UpdateUserRequest) -> Result<pb::User, Failure> {
        into_result(self.client().update_user(request).await).map(|response| response.user.unwrap())
    }

    pub(crate) async fn call_delete(&self, request: pb::DeleteUserRequest) -> Result<pb::DeleteUserResponse, Failure> {
        into_result(self.client().delete_user(request).await)
    }

    /// Creates a user with this id and the display name `first`.
    pub(crate) async fn create(&self, id: &str) -> Result<pb::User, Failure> {
        let request = pb::CreateUserRequest { user: Some(named(id, "first")), ..Default::default() };
        self.call_create(request).await.map(|response| response.user.unwrap())
    }

    /// Reads a user, cached.
    pub(crate) async fn get(&self, id: &str) -> Result<FoundUser, Failure> {
        self.get_at_least(id, 0).await
    }

    /// Reads a user with `min_version`.
    pub(crate) async fn get_at_least(&self, id: &str, min_version: i64) -> Result<FoundUser, Failure> {
        let request = pb::GetUserRequest { id: id.to_owned(), min_version, ..Default::default() };
        self.call_get(request).await.map(FoundUser::from)
    }

    /// Reads a user with STRONG consistency.
    pub(crate) async fn get_strong(&self, id: &str) -> Result<FoundUser, Failure> {
        let consistency = pb::Consistency::Strong.into();
        let request = pb::GetUserRequest { id: id.to_owned(), consistency, ..Default::default() };
        self.call_get(request).await.map(FoundUser::from)
    }

    /// Reads a user by handle, cached.
    pub(crate) async fn by_handle(&self, handle: &str) -> Result<FoundUser, Failure> {
        self.call_by_handle(pb::GetUserByHandleRequest { handle: handle.to_owned(), ..Default::default() }).await
    }

    pub(crate) async fn call_by_handle(&self, request: pb::GetUserByHandleRequest) -> Result<FoundUser, Failure> {
        into_result(self.client().get_user_by_handle(request).await).map(FoundUser::from)
    }

    pub(crate) async fn call_list(&self, request: pb::ListUsersRequest) -> Result<pb::ListUsersResponse, Failure> {
        into_result(self.client().list_users(request).await)
    }

    /// Creates a user with a handle.
    pub(crate) async fn create_with_handle(&self, id: &str, handle: &str) -> Result<pb::User, Failure> {
        let request = pb::CreateUserRequest { user: Some(handled(id, handle)), ..Default::default() };
        self.call_create(request).await.map(|response| response.user.unwrap())
    }

    /// Changes the handle of a user; an empty one removes it.
    pub(crate) async fn take_handle(&self, id: &str, handle: &str) -> Result<pb::User, Failure> {
        self.call_update(changing(handled(id, handle), &["handle"])).await
    }

    /// Reads many users in one call, cached.
    pub(crate) async fn batch<T: ToString>(&self, ids: &[T]) -> Result<Vec<pb::BatchGetUsersResult>, Failure> {
        let ids = ids.iter().map(ToString::to_string).collect();
        self.call_batch(pb::BatchGetUsersRequest { ids, ..Default::default() }).await
    }

    /// Changes the display name of a user.
    pub(crate) async fn rename(&self, id: &str, display_name: &str) -> Result<pb::User, Failure> {
        self.call_update(renaming(id, display_name)).await
    }

    pub(crate) async fn delete(&self, id: &str) -> Result<pb::DeleteUserResponse, Failure> {
        self.call_delete(pb::DeleteUserRequest { id: id.to_owned(), ..Default::default() }).await
    }

    /// Waits until the local cache answers, by the absence of a random user.
    pub(crate) async fn wait_for_local_cache(&self) {
        let probe = format!("probe-{}", uuid::Uuid::new_v4());
        let request = pb::BatchGetUsersRequest { ids: vec![probe], ..Default::default() };
        eventually("the local cache answers", SOON, async || {
            let results = self.call_batch(request.clone()).await.unwrap_or_default();
            results.iter().any(|result| result.read_info.is_some_and(|info| info.source() == Source::LocalCache))
        })
        .await;
    }

    /// Reads a user until the local cache answers.
    pub(crate) async fn warm_local_cache(&self, id: &str) {
        let what = format!("{id} is in the local cache");
        eventually(&what, SOON, async || self.get(id).await.unwrap().source == Source::LocalCache).await;
    }

    /// Reads a user until Redis answers.
    pub(crate) async fn warm_redis(&self, id: &str) {
        let what = format!("{id} is in Redis");
        eventually(&what, SOON, async || self.get(id).await.unwrap().source == Source::Redis).await;
    }
}

/// The answer to a read of an existing user.
#[derive(Clone, Debug)]
pub(crate) struct FoundUser {
    pub(crate) user: pb::User,
    pub(crate) version: i64,
    pub(crate) source: Source,
    pub(crate) stale: bool,
}

impl From<pb::GetUserResponse> for FoundUser {
    fn from(response: pb::GetUserResponse) -> Self {
        let (user, info) = (response.user.unwrap(), response.read_info.unwrap());
        Self { version: user.version, source: info.source(), stale: info.stale, user }
    }
}

impl From<pb::GetUserByHandleResponse> for FoundUser {
    fn from(response: pb::GetUserByHandleResponse) -> Self {
        let pb::GetUserByHandleResponse { user, read_info } = response;
        Self::from(pb::GetUserResponse { user, read_info })
    }
}

/// Returns the message, or the status with its details decoded.
#[expect(clippy::result_large_err, reason = "a test has few of them")]
pub(crate) fn into_result<T>(response: tonic::Result<Response<T>>) -> Result<T, Failure> {
    response.map(Response::into_inner).map_err(|status| Failure::from(&status))
}

/// Waits until a condition holds, and panics after `patience`.
pub(crate) async fn eventually(what: &str, patience: Duration, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
