//! The scenario from a change of a user to its delivery to the last watcher.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use prost_types::FieldMask;
use tidings_client::with_timeout;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::watch_users_response::Frame;
use tidings_proto::user::{CreateUserRequest, UpdateUserRequest, User, WatchUsersRequest, WatchUsersResponse};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Status, Streaming};

use crate::call::{BenchCall, CallFailure, CallSlot};
use crate::context::{ScenarioContext, prepare_each, scenario_call};
use crate::fanout::Fanout;

/// The largest number of ids in one stream; each caller has one.
const IDS_MAX: usize = 1000;

/// The watched users, one per caller. Only its caller changes a user, so the version of the next
/// change is known.
struct WatchedUsers {
    fanout: Fanout,
    versions: Vec<AtomicI64>,
    callers: HashMap<String, usize>,
}

impl WatchedUsers {
    fn new(context: &ScenarioContext) -> Self {
        let callers = 0..context.callers;
        Self {
            fanout: Fanout::new(context.callers, context.shape.subscribers.into()),
            versions: callers.clone().map(|_| AtomicI64::new(1)).collect(),
            callers: callers.map(|caller| (user(context, caller), caller)).collect(),
        }
    }

    /// Records that a watcher has received a version of a user.
    fn record_version(&self, id: &str, version: i64) {
        if let Some(caller) = self.callers.get(id) {
            let stamp = [version.to_le_bytes(), (*caller as u64).to_le_bytes()].concat();
            self.fanout.received(&stamp);
        }
    }
}

/// Changes a user, and waits until the last watcher has the version.
pub(super) async fn watch(context: Arc<ScenarioContext>) -> Result<BenchCall, CallFailure> {
    if context.callers > IDS_MAX {
        return Err(CallFailure::unexpected("expected at most 1000 callers: a stream takes 1000 ids"));
    }
    prepare_each(context.callers as u64, |slot| create(&context, slot)).await?;
    let watched = Arc::new(WatchedUsers::new(&context));
    let watching =
        prepare_each(context.shape.subscribers.into(), |slot| listen(&context, Arc::clone(&watched), slot)).await?;
    let watching = Arc::new(watching); // the streams end when the call is dropped
    Ok(scenario_call(&context, move |context, slot| {
        let (watched, _watching) = (Arc::clone(&watched), Arc::clone(&watching));
        async move {
            let next = watched.versions[slot.caller].load(Ordering::Relaxed) + 1;
            let change = |_| async {
                let version = change(&context, slot).await?;
                watched.versions[slot.caller].store(version, Ordering::Relaxed);
                // A higher version follows a change whose response was lost; the next call waits
                // again.
                if version == next {
                    Ok(())
                } else {
                    Err(CallFailure::unexpected("an earlier change without a response took effect"))
                }
            };
            let expected = CallSlot { number: next.unsigned_abs(), ..slot };
            let delivered = watched.fanout.deliver(expected, vec![0; 16], change);
            let timed_out =
                || Status::deadline_exceeded(format!("timeout: not delivered to all within {:?}", context.timeout));
            timeout(context.timeout, delivered).await.map_err(|_| timed_out())?
        }
    }))
}

/// Returns the id of a caller's user.
fn user(context: &ScenarioContext, caller: usize) -> String {
    format!("{}-of-{caller}", context.id_prefix)
}

async fn create(context: &ScenarioContext, slot: CallSlot) -> Result<(), CallFailure> {
    let user = User { id: user(context, slot.caller), ..Default::default() };
    let request = CreateUserRequest { user: Some(user), ..Default::default() };
    let send = |channel, request| async move { UserServiceClient::new(channel).create_user(request).await };
    context.call(slot.caller, request, send).await?;
    Ok(())
}

/// Changes the user of a caller; returns the new version.
async fn change(context: &ScenarioContext, slot: CallSlot) -> Result<i64, CallFailure> {
    let user = User { id: user(context, slot.caller), bio: slot.number.to_string(), ..Default::default() };
    let update_mask = Some(FieldMask { paths: vec!["bio".into()] });
    let request = UpdateUserRequest { user: Some(user), update_mask, ..Default::default() };
    let send = |channel, request| async move { UserServiceClient::new(channel).update_user(request).await };
    let changed = context.call(slot.caller, request, send).await?;
    Ok(changed.user.map_or(0, |user| user.version))
}

/// Opens a watch of all callers' users and waits until it has caught up.
async fn listen(
    context: &ScenarioContext,
    watched: Arc<WatchedUsers>,
    slot: CallSlot,
) -> Result<AbortOnDropHandle<()>, CallFailure> {
    let endpoint = &context.subscriber_connections[slot.caller % context.subscriber_connections.len()];
    let mut request = Request::new(WatchUsersRequest { ids: watched.callers.keys().cloned().collect() });
    endpoint.authorize(&mut request);
    let begin = async {
        let mut stream = UserServiceClient::new(endpoint.channel()).watch_users(request).await?.into_inner();
        while !matches!(next(&mut stream).await?.frame, Some(Frame::CaughtUp(_))) {}
        Ok(stream)
    };
    let mut stream = with_timeout(context.timeout, begin).await?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        let failure = loop {
            match next(&mut stream).await.map(|response| response.frame) {
                Ok(Some(Frame::Versions(batch))) => {
                    batch.versions.iter().for_each(|version| watched.record_version(&version.id, version.version));
                }
                Ok(Some(Frame::Goodbye(_))) => break CallFailure::unexpected("GOODBYE"),
                Ok(Some(Frame::CaughtUp(_) | Frame::Heartbeat(_)) | None) => {}
                Err(status) => break status.into(),
            }
        };
        watched.fanout.fail(failure);
    })))
}

async fn next(stream: &mut Streaming<WatchUsersResponse>) -> Result<WatchUsersResponse, Status> {
    stream.message().await?.ok_or_else(|| Status::unavailable("the stream has ended"))
}
