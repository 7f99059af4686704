//! From a change of a user to the last of those who watch it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use prost_types::FieldMask;
use tidings_client::within;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::watch_users_response::Frame;
use tidings_proto::user::{CreateUserRequest, UpdateUserRequest, User, WatchUsersRequest, WatchUsersResponse};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Status, Streaming};

use crate::bench::ground::{Ground, calls, each};
use crate::load::{Call, Fanout, Fault, Turn};

/// The most ids of one stream, of which each caller has one.
const IDS_MAX: usize = 1000;

/// The users, one a caller, who alone changes it: so the version is known to which the next change will bring it.
struct Watched {
    fanout: Fanout,
    versions: Vec<AtomicI64>,
    callers: HashMap<String, usize>,
}

impl Watched {
    fn new(ground: &Ground) -> Self {
        let callers = 0..ground.callers;
        Self {
            fanout: Fanout::new(ground.callers, ground.shape.subscribers.into()),
            versions: callers.clone().map(|_| AtomicI64::new(1)).collect(),
            callers: callers.map(|caller| (user(ground, caller), caller)).collect(),
        }
    }

    /// A watcher was told that a user came to a version.
    fn told(&self, id: &str, version: i64) {
        if let Some(caller) = self.callers.get(id) {
            let stamp = [version.to_le_bytes(), (*caller as u64).to_le_bytes()].concat();
            self.fanout.got(&stamp);
        }
    }
}

/// Changes a user, and waits until the last watcher was told.
pub(super) async fn watch(ground: Arc<Ground>) -> Result<Call, Fault> {
    if ground.callers > IDS_MAX {
        return Err(Fault::answer("expected at most 1000 callers, whose users fit into one stream"));
    }
    each(ground.callers as u64, |turn| create(&ground, turn)).await?;
    let watched = Arc::new(Watched::new(&ground));
    let watching = each(ground.shape.subscribers.into(), |turn| listen(&ground, Arc::clone(&watched), turn)).await?;
    let watching = Arc::new(watching); // they end with the calls
    Ok(calls(&ground, move |ground, turn| {
        let (watched, _watching) = (Arc::clone(&watched), Arc::clone(&watching));
        async move {
            let next = watched.versions[turn.caller].load(Ordering::Relaxed) + 1;
            let change = |_| async {
                let version = change(&ground, turn).await?;
                watched.versions[turn.caller].store(version, Ordering::Relaxed);
                // After a change whose answer was lost: only the next one is waited for again.
                if version == next { Ok(()) } else { Err(Fault::answer("an earlier change was made after all")) }
            };
            let expected = Turn { number: next.unsigned_abs(), ..turn };
            let told = watched.fanout.deliver(expected, vec![0; 16], change);
            let late = || Status::deadline_exceeded(format!("not told to all within {:?}", ground.timeout));
            timeout(ground.timeout, told).await.map_err(|_| late())?
        }
    }))
}

/// The user of a caller.
fn user(ground: &Ground, caller: usize) -> String {
    format!("{}-of-{caller}", ground.run)
}

async fn create(ground: &Ground, turn: Turn) -> Result<(), Fault> {
    let user = User { id: user(ground, turn.caller), ..Default::default() };
    let request = CreateUserRequest { user: Some(user), ..Default::default() };
    let send = |channel, request| async move { UserServiceClient::new(channel).create_user(request).await };
    ground.ask(turn.caller, request, send).await?;
    Ok(())
}

/// Changes the user of a caller, and returns its version.
async fn change(ground: &Ground, turn: Turn) -> Result<i64, Fault> {
    let user = User { id: user(ground, turn.caller), bio: turn.number.to_string(), ..Default::default() };
    let update_mask = Some(FieldMask { paths: vec!["bio".into()] });
    let request = UpdateUserRequest { user: Some(user), update_mask, ..Default::default() };
    let send = |channel, request| async move { UserServiceClient::new(channel).update_user(request).await };
    let changed = ground.ask(turn.caller, request, send).await?;
    Ok(changed.user.map_or(0, |user| user.version))
}

/// Begins to watch the users of all callers, and waits until what follows are changes.
async fn listen(ground: &Ground, watched: Arc<Watched>, turn: Turn) -> Result<AbortOnDropHandle<()>, Fault> {
    let endpoint = &ground.listeners[turn.caller % ground.listeners.len()];
    let mut request = Request::new(WatchUsersRequest { ids: watched.callers.keys().cloned().collect() });
    endpoint.authorize(&mut request);
    let begin = async {
        let mut stream = UserServiceClient::new(endpoint.channel()).watch_users(request).await?.into_inner();
        while !matches!(next(&mut stream).await?.frame, Some(Frame::CaughtUp(_))) {}
        Ok(stream)
    };
    let mut stream = within(ground.timeout, begin).await?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        let fault = loop {
            match next(&mut stream).await.map(|response| response.frame) {
                Ok(Some(Frame::Versions(told))) => {
                    told.versions.iter().for_each(|version| watched.told(&version.id, version.version));
                }
                Ok(Some(Frame::Goodbye(_))) => break Fault::answer("GOODBYE"),
                Ok(Some(Frame::CaughtUp(_) | Frame::Heartbeat(_)) | None) => {}
                Err(status) => break status.into(),
            }
        };
        watched.fanout.broken(fault);
    })))
}

async fn next(stream: &mut Streaming<WatchUsersResponse>) -> Result<WatchUsersResponse, Status> {
    stream.message().await?.ok_or_else(|| Status::unavailable("the stream has ended"))
}
