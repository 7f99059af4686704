//! The in-memory user service; reads of a user after the first come from the cache.

use tidings_proto::user::batch_get_users_result::Outcome;
use tidings_proto::user::read_info::Source;
use tidings_proto::user::user_service_server::UserService;
use tidings_proto::user::{self as pb, ReadInfo, User};
use tonic::{Code, Request, Response, Status};

use super::{FakeHandler, Store, refusal};

fn find(store: &mut Store, id: &str) -> Option<(User, ReadInfo)> {
    let user = store.users.get(id)?.clone();
    let source = if store.cached_users.insert(id.to_owned()) { Source::Postgres } else { Source::Redis };
    Some((user, ReadInfo { source: source.into(), ..Default::default() }))
}

#[tonic::async_trait]
impl UserService for FakeHandler {
    type WatchUsersStream = futures_util::stream::Empty<Result<pb::WatchUsersResponse, Status>>;

    async fn create_user(
        &self,
        request: Request<pb::CreateUserRequest>,
    ) -> Result<Response<pb::CreateUserResponse>, Status> {
        self.enter().await?;
        let user = request.into_inner().user.unwrap_or_default();
        let mut store = self.store();
        let deduplicated = match store.users.get(&user.id) {
            Some(known) if *known != user => {
                return Err(refusal(Code::AlreadyExists, "USER_ID_TAKEN", "the id is taken"));
            }
            known => known.is_some(),
        };
        store.users.insert(user.id.clone(), user.clone());
        Ok(Response::new(pb::CreateUserResponse { user: Some(user), deduplicated }))
    }

    async fn get_user(&self, request: Request<pb::GetUserRequest>) -> Result<Response<pb::GetUserResponse>, Status> {
        self.enter().await?;
        let id = request.into_inner().id;
        let (user, info) = find(&mut self.store(), &id)
            .ok_or_else(|| refusal(Code::NotFound, "USER_NOT_FOUND", format!("there is no user {id}")))?;
        Ok(Response::new(pb::GetUserResponse { user: Some(user), read_info: Some(info) }))
    }

    async fn batch_get_users(
        &self,
        request: Request<pb::BatchGetUsersRequest>,
    ) -> Result<Response<pb::BatchGetUsersResponse>, Status> {
        self.enter().await?;
        let mut store = self.store();
        let results = request.into_inner().ids.into_iter().map(|id| match find(&mut store, &id) {
            _ if self.faults.unreadable.contains(&id) => {
                pb::BatchGetUsersResult { id, outcome: Outcome::Unavailable.into(), ..Default::default() }
            }
            Some((user, info)) => {
                pb::BatchGetUsersResult { id, outcome: Outcome::Found.into(), user: Some(user), read_info: Some(info) }
            }
            None => pb::BatchGetUsersResult { id, outcome: Outcome::NotFound.into(), ..Default::default() },
        });
        Ok(Response::new(pb::BatchGetUsersResponse { results: results.collect() }))
    }

    async fn get_user_by_handle(
        &self,
        _: Request<pb::GetUserByHandleRequest>,
    ) -> Result<Response<pb::GetUserByHandleResponse>, Status> {
        Err(Status::unimplemented("not implemented by the fake"))
    }

    async fn list_users(&self, _: Request<pb::ListUsersRequest>) -> Result<Response<pb::ListUsersResponse>, Status> {
        Err(Status::unimplemented("not implemented by the fake"))
    }

    async fn update_user(&self, _: Request<pb::UpdateUserRequest>) -> Result<Response<pb::UpdateUserResponse>, Status> {
        Err(Status::unimplemented("not implemented by the fake"))
    }

    async fn delete_user(&self, _: Request<pb::DeleteUserRequest>) -> Result<Response<pb::DeleteUserResponse>, Status> {
        Err(Status::unimplemented("not implemented by the fake"))
    }

    async fn watch_users(&self, _: Request<pb::WatchUsersRequest>) -> Result<Response<Self::WatchUsersStream>, Status> {
        Err(Status::unimplemented("not implemented by the fake"))
    }
}
