//! Scenarios of the user service.

use std::sync::Arc;

use prost_types::FieldMask;
use tidings_proto::user::batch_get_users_result::Outcome;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{
    BatchGetUsersRequest, Consistency, CreateUserRequest, DeleteUserRequest, GetUserByHandleRequest, GetUserRequest,
    ListUsersRequest, UpdateUserRequest, User,
};

use crate::call::{BenchCall, CallFailure, CallSlot};
use crate::context::{ScenarioContext, prepare_each, scenario_call};

/// Creates a user.
pub(super) fn create(context: &Arc<ScenarioContext>) -> BenchCall {
    scenario_call(context, async |context, slot| {
        create_user(&context, slot, context.id(slot.number)).await?;
        Ok(1)
    })
}

/// Reads a user that is cached.
pub(super) async fn get(context: Arc<ScenarioContext>) -> Result<BenchCall, CallFailure> {
    users(&context).await?;
    Ok(scenario_call(&context, async |context, slot| get_user(&context, slot, Consistency::Cached).await))
}

/// Reads a user from Postgres.
pub(super) async fn get_strong(context: Arc<ScenarioContext>) -> Result<BenchCall, CallFailure> {
    users(&context).await?;
    Ok(scenario_call(&context, async |context, slot| get_user(&context, slot, Consistency::Strong).await))
}

/// Reads a user by handle, whose hint and profile are cached.
pub(super) async fn get_by_handle(context: Arc<ScenarioContext>) -> Result<BenchCall, CallFailure> {
    users_with_handles(&context).await?;
    Ok(scenario_call(&context, async |context, slot| {
        let request = GetUserByHandleRequest { handle: context.key(slot), ..Default::default() };
        let send = |channel, request| async move { UserServiceClient::new(channel).get_user_by_handle(request).await };
        context.call(slot.caller, request, send).await?;
        Ok(1)
    }))
}

/// Reads the first page of the users of this run.
pub(super) async fn list(context: Arc<ScenarioContext>) -> Result<BenchCall, CallFailure> {
    users_with_handles(&context).await?;
    Ok(scenario_call(&context, async |context, slot| {
        let page_size = context.shape.batch.into();
        let request = ListUsersRequest { handle_prefix: context.id_prefix.clone(), page_size, ..Default::default() };
        let send = |channel, request| async move { UserServiceClient::new(channel).list_users(request).await };
        Ok(context.call(slot.caller, request, send).await?.users.len() as u64)
    }))
}

/// Reads a batch of users that are cached.
pub(super) async fn batch_get(context: Arc<ScenarioContext>) -> Result<BenchCall, CallFailure> {
    users(&context).await?;
    Ok(scenario_call(&context, async |context, slot| {
        let ids = context.batch(slot).map(|number| context.id(number % u64::from(context.shape.keys))).collect();
        let request = BatchGetUsersRequest { ids, ..Default::default() };
        let send = |channel, request| async move { UserServiceClient::new(channel).batch_get_users(request).await };
        let results = context.call(slot.caller, request, send).await?.results;
        match results.iter().find(|result| result.outcome() != Outcome::Found) {
            Some(result) => Err(CallFailure::unexpected(result.outcome().as_str_name())),
            None => Ok(results.len() as u64),
        }
    }))
}

/// Changes a user.
pub(super) async fn update(context: Arc<ScenarioContext>) -> Result<BenchCall, CallFailure> {
    users(&context).await?;
    Ok(scenario_call(&context, async |context, slot| {
        update_user(&context, slot).await?;
        Ok(1)
    }))
}

/// Changes a user, and waits until cached reads from every instance show the change.
pub(super) async fn update_seen(context: Arc<ScenarioContext>) -> Result<BenchCall, CallFailure> {
    users(&context).await?;
    Ok(scenario_call(&context, async |context, slot| {
        let version = update_user(&context, slot).await?;
        for caller in 0..context.connections.len() {
            let reader = CallSlot { caller, ..slot };
            while read_user(&context, reader, Consistency::Cached).await?.version < version {}
        }
        Ok(1)
    }))
}

/// Creates a user and deletes it.
pub(super) fn delete(context: &Arc<ScenarioContext>) -> BenchCall {
    scenario_call(context, async |context, slot| {
        let id = context.id(slot.number);
        create_user(&context, slot, id.clone()).await?;
        let request = DeleteUserRequest { id, ..Default::default() };
        let send = |channel, request| async move { UserServiceClient::new(channel).delete_user(request).await };
        context.call(slot.caller, request, send).await?;
        Ok(1)
    })
}

/// Creates the users that are read and changed.
async fn users(context: &ScenarioContext) -> Result<(), CallFailure> {
    prepare_each(context.shape.keys.into(), |slot| create_user(context, slot, context.key(slot))).await?;
    Ok(())
}

/// Creates the users that are read by handle; their handles are their ids.
async fn users_with_handles(context: &ScenarioContext) -> Result<(), CallFailure> {
    let create = |slot| {
        let handle = context.key(slot);
        store(context, slot, User { handle: handle.clone(), ..user(context, handle) })
    };
    prepare_each(context.shape.keys.into(), create).await?;
    Ok(())
}

fn user(context: &ScenarioContext, id: String) -> User {
    User { id, display_name: "Ada Lovelace".into(), age: Some(36), bio: context.text(), ..Default::default() }
}

async fn create_user(context: &ScenarioContext, slot: CallSlot, id: String) -> Result<(), CallFailure> {
    store(context, slot, user(context, id)).await
}

async fn store(context: &ScenarioContext, slot: CallSlot, user: User) -> Result<(), CallFailure> {
    let request = CreateUserRequest { user: Some(user), ..Default::default() };
    let send = |channel, request| async move { UserServiceClient::new(channel).create_user(request).await };
    context.call(slot.caller, request, send).await?;
    Ok(())
}

/// Changes the user of a call; returns the new version.
async fn update_user(context: &ScenarioContext, slot: CallSlot) -> Result<i64, CallFailure> {
    let user = User { id: context.key(slot), bio: slot.number.to_string(), ..Default::default() };
    let update_mask = Some(FieldMask { paths: vec!["bio".into()] });
    let request = UpdateUserRequest { user: Some(user), update_mask, ..Default::default() };
    let send = |channel, request| async move { UserServiceClient::new(channel).update_user(request).await };
    Ok(context.call(slot.caller, request, send).await?.user.unwrap_or_default().version)
}

async fn get_user(context: &ScenarioContext, slot: CallSlot, consistency: Consistency) -> Result<u64, CallFailure> {
    read_user(context, slot, consistency).await?;
    Ok(1)
}

async fn read_user(context: &ScenarioContext, slot: CallSlot, consistency: Consistency) -> Result<User, CallFailure> {
    let request = GetUserRequest { id: context.key(slot), consistency: consistency.into(), ..Default::default() };
    let send = |channel, request| async move { UserServiceClient::new(channel).get_user(request).await };
    Ok(context.call(slot.caller, request, send).await?.user.unwrap_or_default())
}
