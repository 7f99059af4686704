//! The user service.

use std::sync::Arc;

use prost_types::FieldMask;
use tidings_proto::user::batch_get_users_result::Outcome;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{
    BatchGetUsersRequest, Consistency, CreateUserRequest, DeleteUserRequest, GetUserByHandleRequest, GetUserRequest,
    ListUsersRequest, UpdateUserRequest, User,
};

use crate::bench::ground::{Ground, calls, each};
use crate::load::{Call, Fault, Turn};

/// Creates a user.
pub(super) fn create(ground: &Arc<Ground>) -> Call {
    calls(ground, async |ground, turn| {
        create_user(&ground, turn, ground.id(turn.number)).await?;
        Ok(1)
    })
}

/// Reads a user that is cached.
pub(super) async fn get(ground: Arc<Ground>) -> Result<Call, Fault> {
    users(&ground).await?;
    Ok(calls(&ground, async |ground, turn| get_user(&ground, turn, Consistency::Cached).await))
}

/// Reads a user from Postgres.
pub(super) async fn get_strong(ground: Arc<Ground>) -> Result<Call, Fault> {
    users(&ground).await?;
    Ok(calls(&ground, async |ground, turn| get_user(&ground, turn, Consistency::Strong).await))
}

/// Reads a user by handle, whose hint and profile are cached.
pub(super) async fn get_by_handle(ground: Arc<Ground>) -> Result<Call, Fault> {
    users_with_handles(&ground).await?;
    Ok(calls(&ground, async |ground, turn| {
        let request = GetUserByHandleRequest { handle: ground.key(turn), ..Default::default() };
        let send = |channel, request| async move { UserServiceClient::new(channel).get_user_by_handle(request).await };
        ground.ask(turn.caller, request, send).await?;
        Ok(1)
    }))
}

/// Reads the first page of the users of this run.
pub(super) async fn list(ground: Arc<Ground>) -> Result<Call, Fault> {
    users_with_handles(&ground).await?;
    Ok(calls(&ground, async |ground, turn| {
        let page_size = ground.shape.batch.into();
        let request = ListUsersRequest { handle_prefix: ground.run.clone(), page_size, ..Default::default() };
        let send = |channel, request| async move { UserServiceClient::new(channel).list_users(request).await };
        Ok(ground.ask(turn.caller, request, send).await?.users.len() as u64)
    }))
}

/// Reads a batch of users that are cached.
pub(super) async fn batch_get(ground: Arc<Ground>) -> Result<Call, Fault> {
    users(&ground).await?;
    Ok(calls(&ground, async |ground, turn| {
        let ids = ground.batch(turn).map(|number| ground.id(number % u64::from(ground.shape.keys))).collect();
        let request = BatchGetUsersRequest { ids, ..Default::default() };
        let send = |channel, request| async move { UserServiceClient::new(channel).batch_get_users(request).await };
        let results = ground.ask(turn.caller, request, send).await?.results;
        match results.iter().find(|result| result.outcome() != Outcome::Found) {
            Some(result) => Err(Fault::answer(result.outcome().as_str_name())),
            None => Ok(results.len() as u64),
        }
    }))
}

/// Changes a user.
pub(super) async fn update(ground: Arc<Ground>) -> Result<Call, Fault> {
    users(&ground).await?;
    Ok(calls(&ground, async |ground, turn| {
        update_user(&ground, turn).await?;
        Ok(1)
    }))
}

/// Changes a user, until plain reads show it whichever instance is asked: connections are to the instances in turn.
pub(super) async fn update_seen(ground: Arc<Ground>) -> Result<Call, Fault> {
    users(&ground).await?;
    Ok(calls(&ground, async |ground, turn| {
        let version = update_user(&ground, turn).await?;
        for caller in 0..ground.connections.len() {
            let reader = Turn { caller, ..turn };
            while read_user(&ground, reader, Consistency::Cached).await?.version < version {}
        }
        Ok(1)
    }))
}

/// Creates a user and deletes it: what is deleted has to be there.
pub(super) fn delete(ground: &Arc<Ground>) -> Call {
    calls(ground, async |ground, turn| {
        let id = ground.id(turn.number);
        create_user(&ground, turn, id.clone()).await?;
        let request = DeleteUserRequest { id, ..Default::default() };
        let send = |channel, request| async move { UserServiceClient::new(channel).delete_user(request).await };
        ground.ask(turn.caller, request, send).await?;
        Ok(1)
    })
}

/// Creates the users that are read and changed.
async fn users(ground: &Ground) -> Result<(), Fault> {
    each(ground.shape.keys.into(), |turn| create_user(ground, turn, ground.key(turn))).await?;
    Ok(())
}

/// The same, whose handles are their ids.
async fn users_with_handles(ground: &Ground) -> Result<(), Fault> {
    let create = |turn| {
        let handle = ground.key(turn);
        store(ground, turn, User { handle: handle.clone(), ..user(ground, handle) })
    };
    each(ground.shape.keys.into(), create).await?;
    Ok(())
}

fn user(ground: &Ground, id: String) -> User {
    User { id, display_name: "Ada Lovelace".into(), age: Some(36), bio: ground.text(), ..Default::default() }
}

async fn create_user(ground: &Ground, turn: Turn, id: String) -> Result<(), Fault> {
    store(ground, turn, user(ground, id)).await
}

async fn store(ground: &Ground, turn: Turn, user: User) -> Result<(), Fault> {
    let request = CreateUserRequest { user: Some(user), ..Default::default() };
    let send = |channel, request| async move { UserServiceClient::new(channel).create_user(request).await };
    ground.ask(turn.caller, request, send).await?;
    Ok(())
}

/// Changes the user whose turn it is; returns the new version.
async fn update_user(ground: &Ground, turn: Turn) -> Result<i64, Fault> {
    let user = User { id: ground.key(turn), bio: turn.number.to_string(), ..Default::default() };
    let update_mask = Some(FieldMask { paths: vec!["bio".into()] });
    let request = UpdateUserRequest { user: Some(user), update_mask, ..Default::default() };
    let send = |channel, request| async move { UserServiceClient::new(channel).update_user(request).await };
    Ok(ground.ask(turn.caller, request, send).await?.user.unwrap_or_default().version)
}

async fn get_user(ground: &Ground, turn: Turn, consistency: Consistency) -> Result<u64, Fault> {
    read_user(ground, turn, consistency).await?;
    Ok(1)
}

async fn read_user(ground: &Ground, turn: Turn, consistency: Consistency) -> Result<User, Fault> {
    let request = GetUserRequest { id: ground.key(turn), consistency: consistency.into(), ..Default::default() };
    let send = |channel, request| async move { UserServiceClient::new(channel).get_user(request).await };
    Ok(ground.ask(turn.caller, request, send).await?.user.unwrap_or_default())
}
