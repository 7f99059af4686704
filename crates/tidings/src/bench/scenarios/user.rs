//! The user service.

use std::sync::Arc;

use prost_types::FieldMask;
use tidings_proto::user::batch_get_users_result::Outcome;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{
    BatchGetUsersRequest, Consistency, CreateUserRequest, DeleteUserRequest, GetUserRequest, UpdateUserRequest, User,
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

async fn create_user(ground: &Ground, turn: Turn, id: String) -> Result<(), Fault> {
    let user =
        User { id, display_name: "Ada Lovelace".into(), age: Some(36), bio: ground.text(), ..Default::default() };
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
