//! The gRPC handlers: each validates, calls a use case, and converts the result.

mod status;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tidings_proto::user::encoded as pb;
use tidings_proto::user::encoded::user_service_server::UserService;
use tidings_server::{DrainSignal, StreamEnd};
use tidings_status::Created;
use tonic::{Request, Response, Status};

use crate::domain::{Error, UserWatches, Users};
use crate::model::{Deletion, UserRecord};
use crate::wire;

/// Implements the contract's `UserService` with the use cases.
#[derive(Clone, Debug)]
pub struct Rpc {
    users: Users,
    watches: UserWatches,
}

impl Rpc {
    /// Creates the handlers over both groups of use cases.
    pub fn new(users: Users, watches: UserWatches) -> Self {
        Self { users, watches }
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
        let Created { value: user, deduplicated } = self.users.create(new).await?;
        Ok(Response::new(pb::CreateUserResponse { user: Some(wire::user(user)), deduplicated }))
    }

    async fn get_user(&self, request: Request<pb::GetUserRequest>) -> Result<Response<pb::GetUserResponse>, Status> {
        let wire::GetUser { id, min_version, consistency } = wire::get(request.into_inner())?;
        let read = self.users.get(&id, min_version, consistency).await?;
        let read_info = Some(wire::read_info(&read));
        match read.record {
            UserRecord::Present(user) => Ok(Response::new(pb::GetUserResponse { user: user.bytes, read_info })),
            UserRecord::Absent { .. } => Err(Error::NotFound { id }.into()),
        }
    }

    async fn get_user_by_handle(
        &self,
        request: Request<pb::GetUserByHandleRequest>,
    ) -> Result<Response<pb::GetUserByHandleResponse>, Status> {
        let request = request.into_inner();
        let wire::GetUserByHandle { handle, min_version, consistency } = wire::get_by_handle(&request)?;
        let read = self.users.get_by_handle(&handle, min_version, consistency).await?;
        let read_info = Some(wire::read_info(&read));
        match read.record {
            UserRecord::Present(user) => Ok(Response::new(pb::GetUserByHandleResponse { user: user.bytes, read_info })),
            UserRecord::Absent { .. } => Err(Error::HandleNotFound { handle: request.handle }.into()),
        }
    }

    async fn batch_get_users(
        &self,
        request: Request<pb::BatchGetUsersRequest>,
    ) -> Result<Response<pb::BatchGetUsersResponse>, Status> {
        let (ids, consistency) = wire::batch_get(request.into_inner())?;
        let reads = self.users.get_many(&ids, consistency).await?;
        Ok(Response::new(wire::batch(&ids, &reads)))
    }

    async fn list_users(
        &self,
        request: Request<pb::ListUsersRequest>,
    ) -> Result<Response<pb::ListUsersResponse>, Status> {
        let wire::ListUsers { listing, size } = wire::list(&request.into_inner())?;
        let page = self.users.list(&listing, size).await?;
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
        let Deletion { version, time } = self.users.delete(id, expected_version).await?;
        Ok(Response::new(pb::DeleteUserResponse { version, delete_time: Some(time.into()) }))
    }

    async fn watch_users(
        &self,
        request: Request<pb::WatchUsersRequest>,
    ) -> Result<Response<Self::WatchUsersStream>, Status> {
        let drain_signal = request.extensions().get().cloned().unwrap_or_else(DrainSignal::never);
        let ids = wire::watch(request.into_inner())?;
        let stream_end = StreamEnd::at(drain_signal.reached());
        let frames = self.watches.watch(&ids, stream_end).await?;
        Ok(Response::new(frames.map(|frame| Ok(wire::frame(frame))).boxed()))
    }
}
