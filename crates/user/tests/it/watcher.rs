//! Somebody who watches versions, and takes nothing that must not be told.

use std::collections::BTreeMap;
use std::time::Duration;

use tidings_proto::user as pb;
use tidings_proto::user::watch_users_response::Frame;
use tidings_status::Failure;
use tokio::time::timeout;
use tonic::Streaming;

use super::support::{SOON, Users, World, told};

/// Somebody who watches versions.
pub(crate) struct Watcher {
    stream: Streaming<pb::WatchUsersResponse>,
    /// The last that was told of each user.
    pub(crate) known: BTreeMap<String, (i64, bool)>,
    /// Frames of versions that came so far.
    pub(crate) frames: usize,
}

/// Calls WatchUsers.
pub(crate) async fn watch<T: ToString>(users: &Users, ids: &[T]) -> Result<Watcher, Failure> {
    let ids = ids.iter().map(ToString::to_string).collect();
    let stream = told(users.client().watch_users(pb::WatchUsersRequest { ids }).await)?;
    Ok(Watcher::of(stream))
}

impl Watcher {
    /// One that has nothing heard yet.
    pub(crate) fn of(stream: Streaming<pb::WatchUsersResponse>) -> Self {
        Self { stream, known: BTreeMap::new(), frames: 0 }
    }

    /// One that has caught up.
    pub(crate) async fn start<T: ToString>(users: &Users, ids: &[T]) -> Self {
        let mut watcher = watch(users, ids).await.unwrap();
        watcher.catch_up().await;
        watcher
    }

    /// What comes next, `None` if nothing does within `patience`: versions only grow, and none is told twice.
    pub(crate) async fn frame_within(&mut self, patience: Duration) -> Option<Frame> {
        let response = timeout(patience, self.stream.message()).await.ok()?;
        let Some(pb::WatchUsersResponse { frame: Some(frame) }) = response.unwrap() else {
            panic!("the stream goes on, and every frame says something");
        };
        if let Frame::Versions(told) = &frame {
            assert!(!told.versions.is_empty());
            self.frames += 1;
            for pb::UserVersion { id, version, absent } in &told.versions {
                let before = self.known.insert(id.clone(), (*version, *absent));
                assert!(before.is_none_or(|(before, _)| before < *version), "{id}: {version} after {before:?}");
                assert!(*version > 0 || *absent, "{id}");
            }
        }
        Some(frame)
    }

    /// What comes next.
    pub(crate) async fn frame(&mut self) -> Frame {
        self.frame_within(SOON).await.unwrap()
    }

    /// Reads until the first versions were told.
    pub(crate) async fn catch_up(&mut self) {
        while !matches!(self.frame().await, Frame::CaughtUp(_)) {}
    }

    /// Reads until this was told of a user.
    pub(crate) async fn until(&mut self, id: &str, version: i64, absent: bool) {
        while self.known.get(id) != Some(&(version, absent)) {
            self.frame().await;
        }
    }

    /// Reads until nothing was told for a while.
    pub(crate) async fn until_quiet(&mut self, quiet: Duration) {
        while self.frame_within(quiet).await.is_some() {}
    }

    /// Reads to the end of the stream: says what the last frame was.
    pub(crate) async fn last(mut self) -> Option<Frame> {
        let mut last = None;
        while let Some(response) = timeout(SOON, self.stream.message()).await.unwrap().unwrap() {
            last = response.frame;
        }
        last
    }
}

impl World {
    /// How many instances hear what relays tell.
    pub(crate) fn ears(&self) -> usize {
        let channel = format!("{}:user:news", self.prefix);
        let (_, ears): (String, usize) =
            redis::cmd("PUBSUB").arg("NUMSUB").arg(channel).query(&mut self.redis()).unwrap();
        ears
    }

    /// What Postgres knows of all users, as a watcher would be told it.
    pub(crate) async fn versions(&self) -> BTreeMap<String, (i64, bool)> {
        let rows: Vec<(String, i64, bool)> =
            sqlx::query_as("SELECT id, version, delete_time IS NOT NULL FROM user_account")
                .fetch_all(&mut self.sql().await)
                .await
                .unwrap();
        rows.into_iter().map(|(id, version, absent)| (id, (version, absent))).collect()
    }
}
