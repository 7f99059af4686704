//! A client of WatchUsers that checks every frame.

use std::collections::BTreeMap;
use std::time::Duration;

use tidings_proto::user as pb;
use tidings_proto::user::watch_users_response::Frame;
use tidings_status::Failure;
use tokio::time::timeout;
use tonic::Streaming;

use super::support::{SOON, TestEnv, UserInstance, into_result};

/// A client of WatchUsers: panics on a repeated or decreasing version.
pub(crate) struct VersionWatcher {
    stream: Streaming<pb::WatchUsersResponse>,
    /// Last version received of each user, and true if absent.
    pub(crate) known: BTreeMap<String, (i64, bool)>,
    /// Number of `Versions` frames received.
    pub(crate) frames: usize,
}

/// Calls WatchUsers.
pub(crate) async fn watch<T: ToString>(users: &UserInstance, ids: &[T]) -> Result<VersionWatcher, Failure> {
    let ids = ids.iter().map(ToString::to_string).collect();
    let stream = into_result(users.client().watch_users(pb::WatchUsersRequest { ids }).await)?;
    Ok(VersionWatcher::of(stream))
}

impl VersionWatcher {
    /// Wraps a stream of which no frame is read yet.
    pub(crate) fn of(stream: Streaming<pb::WatchUsersResponse>) -> Self {
        Self { stream, known: BTreeMap::new(), frames: 0 }
    }

    /// Opens a stream and reads until `CaughtUp`.
    pub(crate) async fn start<T: ToString>(users: &UserInstance, ids: &[T]) -> Self {
        let mut watcher = watch(users, ids).await.unwrap();
        watcher.catch_up().await;
        watcher
    }

    /// Returns the next frame, or `None` if none arrives within `patience`.
    pub(crate) async fn frame_within(&mut self, patience: Duration) -> Option<Frame> {
        let response = timeout(patience, self.stream.message()).await.ok()?;
        let Some(pb::WatchUsersResponse { frame: Some(frame) }) = response.unwrap() else {
            panic!("the stream ended, or a frame is empty");
        };
        if let Frame::Versions(received) = &frame {
            assert!(!received.versions.is_empty());
            self.frames += 1;
            for pb::UserVersion { id, version, absent } in &received.versions {
                let before = self.known.insert(id.clone(), (*version, *absent));
                assert!(before.is_none_or(|(before, _)| before < *version), "{id}: {version} after {before:?}");
                assert!(*version > 0 || *absent, "{id}");
            }
        }
        Some(frame)
    }

    /// Returns the next frame, which must arrive soon.
    pub(crate) async fn frame(&mut self) -> Frame {
        self.frame_within(SOON).await.unwrap()
    }

    /// Reads until `CaughtUp`.
    pub(crate) async fn catch_up(&mut self) {
        while !matches!(self.frame().await, Frame::CaughtUp(_)) {}
    }

    /// Reads until a user is at this version.
    pub(crate) async fn until(&mut self, id: &str, version: i64, absent: bool) {
        while self.known.get(id) != Some(&(version, absent)) {
            self.frame().await;
        }
    }

    /// Reads until no frame arrives for a while.
    pub(crate) async fn until_quiet(&mut self, quiet: Duration) {
        while self.frame_within(quiet).await.is_some() {}
    }

    /// Reads to the end of the stream and returns the last frame.
    pub(crate) async fn last(mut self) -> Option<Frame> {
        let mut last = None;
        while let Some(response) = timeout(SOON, self.stream.message()).await.unwrap().unwrap() {
            last = response.frame;
        }
        last
    }
}

impl TestEnv {
    /// Number of instances subscribed to notifications.
    pub(crate) fn subscribers(&self) -> usize {
        let channel = format!("{}:user:news", self.prefix);
        let (_, subscribers): (String, usize) =
            redis::cmd("PUBSUB").arg("NUMSUB").arg(channel).query(&mut self.redis()).unwrap();
        subscribers
    }

    /// The versions of all users in Postgres, as in [`VersionWatcher::known`].
    pub(crate) async fn versions(&self) -> BTreeMap<String, (i64, bool)> {
        let rows: Vec<(String, i64, bool)> =
            sqlx::query_as("SELECT id, version, delete_time IS NOT NULL FROM user_account")
                .fetch_all(&mut self.sql().await)
                .await
                .unwrap();
        rows.into_iter().map(|(id, version, absent)| (id, (version, absent))).collect()
    }
}
