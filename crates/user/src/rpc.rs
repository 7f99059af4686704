//! The handlers: check, call, answer.

mod status;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tidings_proto::user::encoded as pb;
use tidings_proto::user::encoded::user_service_server::UserService;
use tidings_server::Ending;
use tonic::{Request, Response, Status};

use crate::domain::{Error, Users, Watching};
use crate::model::Record;
use crate::{watch, wire};

/// The contract over the use cases.
#[derive(Clone, Debug)]
pub struct Rpc {
    users: Users,
    watching: Watching,
}

impl Rpc {
    /// The contract over these users, and over those who watch them.
    pub fn new(users: Users, watching: Watching) -> Self {
        Self { users, watching }
    }
}

#[tonic::async_trait]
impl UserService for Rpc {
    type WatchUsersStream = BoxStream<'static, Result<pb::WatchUsersResponse, Status>>;

    async fn create_user(
        &self,
        request: Request<pb::CreateUserRequest>,
    ) -> Result<Response<pb::CreateUserResponse>, Status> {
        let new = wire::create(request.into_inner())?;
        let (user, deduplicated) = self.users.create(new).await?;
        Ok(Response::new(pb::CreateUserResponse { user: Some(wire::user(user)), deduplicated }))
    }

    async fn get_user(&self, request: Request<pb::GetUserRequest>) -> Result<Response<pb::GetUserResponse>, Status> {
        let wire::Get { id, min_version, strong } = wire::get(request.into_inner())?;
        let read = if strong {
            self.users.get_strong(&id, min_version).await?
        } else {
            self.users.get(&id, min_version).await?
        };
        let read_info = Some(wire::read_info(&read));
        match read.record {
            Record::Present(user) => Ok(Response::new(pb::GetUserResponse { user: user.bytes, read_info })),
            Record::Absent { .. } => Err(Error::NotFound { id }.into()),
        }
    }

    async fn get_user_by_handle(
        &self,
        request: Request<pb::GetUserByHandleRequest>,
    ) -> Result<Response<pb::GetUserByHandleResponse>, Status> {
        let request = request.into_inner();
        let wire::GetByHandle { handle, min_version, strong } = wire::get_by_handle(&request)?;
        let read = if strong {
            self.users.get_by_handle_strong(&handle, min_version).await?
        } else {
            self.users.get_by_handle(&handle, min_version).await?
        };
        let read_info = Some(wire::read_info(&read));
        match read.record {
            Record::Present(user) => Ok(Response::new(pb::GetUserByHandleResponse { user: user.bytes, read_info })),
            Record::Absent { .. } => Err(Error::HandleNotFound { handle: request.handle }.into()),
        }
    }

    async fn batch_get_users(
        &self,
        request: Request<pb::BatchGetUsersRequest>,
    ) -> Result<Response<pb::BatchGetUsersResponse>, Status> {
        let (ids, strong) = wire::batch_get(request.into_inner())?;
        let reads = self.users.get_many(&ids, strong).await?;
        Ok(Response::new(wire::batch(&ids, &reads)))
    }

    async fn list_users(
        &self,
        request: Request<pb::ListUsersRequest>,
    ) -> Result<Response<pb::ListUsersResponse>, Status> {
        let wire::List { listing, after, size } = wire::list(&request.into_inner())?;
        let page = self.users.list(&listing, &after, size).await?;
        Ok(Response::new(wire::page(&listing, page)))
    }

    async fn update_user(
        &self,
        request: Request<pb::UpdateUserRequest>,
    ) -> Result<Response<pb::UpdateUserResponse>, Status> {
        let change = wire::update(request.into_inner())?;
        let user = self.users.update(change).await?;
        Ok(Response::new(pb::UpdateUserResponse { user: Some(wire::user(user)) }))
    }

    async fn delete_user(
        &self,
        request: Request<pb::DeleteUserRequest>,
    ) -> Result<Response<pb::DeleteUserResponse>, Status> {
        let (id, expected_version) = wire::delete(request.into_inner())?;
        let (version, time) = self.users.delete(id, expected_version).await?;
        Ok(Response::new(pb::DeleteUserResponse { version, delete_time: Some(time.into()) }))
    }

    async fn watch_users(
        &self,
        request: Request<pb::WatchUsersRequest>,
    ) -> Result<Response<Self::WatchUsersStream>, Status> {
        let ending = request.extensions().get().cloned().unwrap_or_else(Ending::never);
        let ids = wire::watch(request.into_inner())?;
        let ending = watch::Ending::at(async move { ending.reached().await });
        let frames = self.watching.watch(&ids, ending).await?;
        Ok(Response::new(frames.map(|frame| Ok(wire::frame(frame))).boxed()))
    }
}
