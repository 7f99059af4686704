//! One stream of WatchUsers, and its next frame.

use std::sync::Arc;

use tidings_server::{StreamClock, StreamEnd};

use super::directory::Registration;
use super::{WatchLimitReached, WatchRegistry};
use crate::model::{UserId, UserVersion, WatchFrame};

/// One registered stream; unregistered when it is dropped.
#[derive(Debug)]
pub struct VersionStream {
    registry: Arc<WatchRegistry>,
    registration: Registration,
    caught_up: bool,
    clock: StreamClock,
}

impl VersionStream {
    pub(super) fn register(
        registry: &Arc<WatchRegistry>,
        ids: &[UserId],
        stream_end: StreamEnd,
    ) -> Result<Self, WatchLimitReached> {
        let mut directory = registry.directory.lock();
        let registration = directory.register(ids, registry.limits.ids).ok_or(WatchLimitReached)?;
        registry.metrics.set_size(directory.size());
        drop(directory);
        let clock = StreamClock::start(registry.limits.heartbeat, stream_end);
        Ok(Self { registry: Arc::clone(registry), registration, caught_up: false, clock })
    }

    /// Waits for the next frame; `None` after the end. `degraded` returns true while changes may
    /// arrive late. Cancel-safe.
    pub async fn next(&mut self, degraded: impl Fn() -> bool) -> Option<WatchFrame> {
        let frame = loop {
            if self.clock.has_ended() {
                return None;
            }
            if let Some(goodbye) = self.clock.goodbye().await {
                break WatchFrame::Goodbye(goodbye);
            }
            if let Some(versions) = self.versions() {
                break WatchFrame::Versions(versions);
            }
            if !std::mem::replace(&mut self.caught_up, true) {
                break WatchFrame::CaughtUp;
            }
            if self.clock.is_heartbeat_due() {
                break WatchFrame::Heartbeat { degraded: degraded() };
            }
            tokio::select! {
                () = self.registration.queue.ready() => {}
                () = self.clock.tick(None) => {}
            }
        };
        self.clock.frame_sent();
        Some(frame)
    }

    /// Takes the unsent versions, if any.
    fn versions(&self) -> Option<Vec<UserVersion>> {
        let unsent = self.registration.queue.take();
        self.registry.metrics.record_sent(unsent.len());
        let versions = unsent.into_iter().map(|(number, state)| {
            let id = UserId::new(self.registration.ids[number].to_string());
            UserVersion { id, version: state.version, absent: state.absent }
        });
        Some(versions.collect::<Vec<_>>()).filter(|versions| !versions.is_empty())
    }
}

impl Drop for VersionStream {
    fn drop(&mut self) {
        let mut directory = self.registry.directory.lock();
        directory.unregister(&self.registration);
        self.registry.metrics.set_size(directory.size());
    }
}
