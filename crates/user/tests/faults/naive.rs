//! A naive user cache over the same table: the usual design, which is wrong.
//!
//! A read tries Redis, else reads Postgres and stores the result, also an absence. A write changes
//! the row and stores the new value. A reader stores the owner of a handle. Each line looks
//! correct, and each race in these tests makes it answer wrongly. A profile has only a display name
//! and a handle here.

use deadpool_redis::redis::{AsyncCommands as _, RedisError};
use prost::Message as _;
use sqlx::PgPool;
use tidings_proto::user as pb;
use tidings_proto::user::read_info::Source;
use tidings_proto::user::user_service_server::{UserService, UserServiceServer};
use tidings_server::Server;
use tidings_user::Config;
use tidings_user::model::HandleKey;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::support::{TestEnv, UserInstance};

/// TTL of cached values.
const TTL_SECONDS: u64 = 600;

/// The naive service.
pub(crate) struct NaiveUserService {
    postgres: PgPool,
    redis: deadpool_redis::Pool,
    prefix: String,
}

/// A user, or its absence.
type MaybeUser = Option<pb::User>;

/// Columns of a user: display name, handle and version.
type Row = (String, String, i64);

impl NaiveUserService {
    /// Reads through the cache.
    async fn read(&self, id: &str, min_version: i64) -> Result<(MaybeUser, Source), Status> {
        match self.cached(id).await {
            Ok(Some(None)) => Ok((None, Source::Redis)),
            Ok(Some(Some(user))) if user.version >= min_version => Ok((Some(user), Source::Redis)),
            _ => self.load(id).await,
        }
    }

    /// Reads Postgres, and fills the cache.
    async fn load(&self, id: &str) -> Result<(MaybeUser, Source), Status> {
        let found = self.stored(id).await?;
        fail::fail_point!("user::before_fill");
        self.store(id, found.as_ref()).await;
        Ok((found, Source::Postgres))
    }

    /// Stores a user that was just written.
    async fn store_written(&self, user: &pb::User) {
        fail::fail_point!("user::before_apply");
        self.store(&user.id, Some(user)).await;
    }

    /// Returns the cached user or absence, if any.
    async fn cached(&self, id: &str) -> Result<Option<MaybeUser>, Status> {
        let mut redis = self.redis.get().await.map_err(unavailable)?;
        let bytes: Option<Vec<u8>> = redis.get(self.key("u", id)).await.map_err(unavailable)?;
        let found =
            |bytes: Vec<u8>| (!bytes.is_empty()).then(|| pb::User::decode(&*bytes).map_err(unavailable)).transpose();
        bytes.map(found).transpose()
    }

    /// Stores a user or its absence; continues without Redis if it fails.
    async fn store(&self, id: &str, found: Option<&pb::User>) {
        let bytes = found.map(pb::User::encode_to_vec).unwrap_or_default();
        if let Ok(mut redis) = self.redis.get().await {
            let _: Result<(), RedisError> = redis.set_ex(self.key("u", id), bytes, TTL_SECONDS).await;
        }
    }

    /// Builds a key of the form that `TestEnv` expects.
    fn key(&self, kind: &str, name: &str) -> String {
        format!("{}:user:naive:{kind}:{{{name}}}", self.prefix)
    }

    /// Returns the owner of a handle from Redis, else from Postgres, which it then stores.
    async fn owner(&self, handle: &HandleKey) -> Result<Option<String>, Status> {
        let key = self.key("h", handle.as_str());
        let mut redis = self.redis.get().await.map_err(unavailable)?;
        if let Some(id) = redis.get(&key).await.map_err(unavailable)? {
            return Ok(Some(id));
        }
        let query = sqlx::query_scalar("SELECT id FROM user_account WHERE handle_key = $1");
        let id: Option<String> =
            query.bind(handle.as_str()).fetch_optional(&self.postgres).await.map_err(unavailable)?;
        fail::fail_point!("user::before_hint");
        if let Some(id) = &id {
            let _: Result<(), RedisError> = redis.set_ex(key, id, TTL_SECONDS).await;
        }
        Ok(id)
    }

    async fn stored(&self, id: &str) -> Result<MaybeUser, Status> {
        let query = sqlx::query_as(
            "SELECT display_name, handle, version FROM user_account WHERE id = $1 AND delete_time IS NULL",
        );
        let row: Option<Row> = query.bind(id).fetch_optional(&self.postgres).await.map_err(unavailable)?;
        Ok(row.map(|row| user(id, row)))
    }
}

#[tonic::async_trait]
impl UserService for NaiveUserService {
    type WatchUsersStream = futures_util::stream::Empty<Result<pb::WatchUsersResponse, Status>>;

    async fn create_user(
        &self,
        request: Request<pb::CreateUserRequest>,
    ) -> Result<Response<pb::CreateUserResponse>, Status> {
        let pb::User { id, display_name, handle, .. } = request.into_inner().user.unwrap_or_default();
        let query = sqlx::query_as(
            "INSERT INTO user_account (id, handle, handle_key, display_name, avatar_uri, bio, attributes, version) \
             VALUES ($1, $2, $3, $4, '', '', '{}', 1) ON CONFLICT DO NOTHING RETURNING display_name, handle, version",
        );
        let query = query.bind(&id).bind(&handle).bind(key(&handle)).bind(display_name);
        let row = query.fetch_optional(&self.postgres).await.map_err(unavailable)?;
        let user = user(&id, row.ok_or_else(|| Status::already_exists("the id is taken"))?);
        self.store_written(&user).await;
        Ok(Response::new(pb::CreateUserResponse { user: Some(user), deduplicated: false }))
    }

    async fn get_user(&self, request: Request<pb::GetUserRequest>) -> Result<Response<pb::GetUserResponse>, Status> {
        let request = request.into_inner();
        let (found, source) = match request.consistency() {
            pb::Consistency::Strong => (self.stored(&request.id).await?, Source::Postgres),
            _ => self.read(&request.id, request.min_version).await?,
        };
        let user = found.ok_or_else(not_found)?;
        Ok(Response::new(pb::GetUserResponse { user: Some(user), read_info: Some(info(source)) }))
    }

    async fn batch_get_users(
        &self,
        request: Request<pb::BatchGetUsersRequest>,
    ) -> Result<Response<pb::BatchGetUsersResponse>, Status> {
        use pb::batch_get_users_result::Outcome;
        let mut results = Vec::new();
        for id in request.into_inner().ids {
            let (user, source) = self.read(&id, 0).await?;
            let outcome = if user.is_some() { Outcome::Found } else { Outcome::NotFound };
            results.push(pb::BatchGetUsersResult { id, outcome: outcome.into(), user, read_info: Some(info(source)) });
        }
        Ok(Response::new(pb::BatchGetUsersResponse { results }))
    }

    async fn get_user_by_handle(
        &self,
        request: Request<pb::GetUserByHandleRequest>,
    ) -> Result<Response<pb::GetUserByHandleResponse>, Status> {
        let handle = HandleKey::of(&request.into_inner().handle);
        let id = self.owner(&handle).await?.ok_or_else(not_found)?;
        let (found, source) = self.read(&id, 0).await?;
        let user = found.ok_or_else(not_found)?;
        Ok(Response::new(pb::GetUserByHandleResponse { user: Some(user), read_info: Some(info(source)) }))
    }

    async fn list_users(&self, _: Request<pb::ListUsersRequest>) -> Result<Response<pb::ListUsersResponse>, Status> {
        Err(Status::unimplemented("no race lists users"))
    }

    async fn update_user(
        &self,
        request: Request<pb::UpdateUserRequest>,
    ) -> Result<Response<pb::UpdateUserResponse>, Status> {
        let pb::UpdateUserRequest { user: requested, update_mask, .. } = request.into_inner();
        let pb::User { id, display_name, handle, .. } = requested.unwrap_or_default();
        let query = sqlx::query_as(
            "UPDATE user_account SET display_name = CASE WHEN $2 THEN display_name ELSE $3 END, \
             handle = CASE WHEN $2 THEN $4 ELSE handle END, handle_key = CASE WHEN $2 THEN $5 ELSE handle_key END, \
             version = version + 1, update_time = now() \
             WHERE id = $1 AND delete_time IS NULL RETURNING display_name, handle, version",
        );
        let changes_handle = update_mask.unwrap_or_default().paths == ["handle"];
        let query = query.bind(&id).bind(changes_handle).bind(display_name).bind(&handle).bind(key(&handle));
        let row = query.fetch_optional(&self.postgres).await.map_err(unavailable)?;
        let user = user(&id, row.ok_or_else(not_found)?);
        self.store_written(&user).await;
        Ok(Response::new(pb::UpdateUserResponse { user: Some(user) }))
    }

    async fn delete_user(
        &self,
        request: Request<pb::DeleteUserRequest>,
    ) -> Result<Response<pb::DeleteUserResponse>, Status> {
        let id = request.into_inner().id;
        let query = sqlx::query_scalar(
            "UPDATE user_account SET display_name = '', handle = '', handle_key = NULL, \
             version = version + 1, delete_time = now() \
             WHERE id = $1 AND delete_time IS NULL RETURNING version",
        );
        let version: Option<i64> = query.bind(&id).fetch_optional(&self.postgres).await.map_err(unavailable)?;
        let version = version.ok_or_else(not_found)?;
        fail::fail_point!("user::before_apply");
        self.store(&id, None).await;
        Ok(Response::new(pb::DeleteUserResponse { version, delete_time: None }))
    }

    /// Not implemented: no race watches users.
    async fn watch_users(&self, _: Request<pb::WatchUsersRequest>) -> Result<Response<Self::WatchUsersStream>, Status> {
        Err(Status::unimplemented("the naive cache has no watches"))
    }
}

fn user(id: &str, (display_name, handle, version): Row) -> pb::User {
    pb::User { id: id.to_owned(), display_name, handle, version, ..Default::default() }
}

/// Value of the column `handle_key`.
fn key(handle: &str) -> Option<String> {
    (!handle.is_empty()).then(|| HandleKey::of(handle).into_string())
}

fn info(source: Source) -> pb::ReadInfo {
    pb::ReadInfo { source: source.into(), ..Default::default() }
}

fn not_found() -> Status {
    Status::not_found("there is no such user")
}

fn unavailable(error: impl std::error::Error) -> Status {
    Status::unavailable(error.to_string())
}

impl TestEnv {
    /// Starts an instance of the naive service.
    pub(crate) async fn serve_naive(&self) -> UserInstance {
        self.serve_naive_with(|_| {}).await
    }

    /// Starts an instance of the naive service with changed settings, as far as it has them.
    pub(crate) async fn serve_naive_with(&self, tune: impl FnOnce(&mut Config)) -> UserInstance {
        let mut config = self.config();
        tune(&mut config);
        let postgres = PgPool::connect_lazy(&self.postgres_url).unwrap();
        let redis = deadpool_redis::Config::from_url(&self.redis_url);
        let redis = redis.create_pool(Some(deadpool_redis::Runtime::Tokio1)).unwrap();
        let naive = NaiveUserService { postgres: postgres.clone(), redis, prefix: self.prefix.clone() };
        let listener = TcpListener::bind(config.listen).await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let server = Server::new(&config.server).add(UserServiceServer::new(naive));
        let serving = server.serve(listener, stop.clone());
        let serving = tokio::spawn(async move {
            serving.await.unwrap();
            postgres.close().await;
        });
        UserInstance::running(address, stop, serving).await
    }
}
