//! Registry of watching streams, and the newest version this instance knows of each watched user.
//!
//! Versions come from notifications, from the comparison with Postgres, and from the first read of
//! a stream, in any order and any number of times. A stream is polled by the flow control of its
//! connection and then takes the versions that are new to it, so it needs neither a task nor a
//! queue of frames. These invariants hold:
//! - **W1** The version of an id only grows, in the directory and in each stream
//!   (`WatchDirectory::update`, `WatchQueue::push`).
//! - **W2** For each watched id, every stream's version is at least the directory's: a registration
//!   copies it, and every update is pushed to all subscribers under the same lock. So a comparison
//!   needs one version per id.
//! - **W3** A stream holds one version per id, whether it is read or not, so its memory is constant
//!   (`WatchQueue`).

mod directory;
mod queue;
mod stream;

use std::sync::Arc;
use std::time::Duration;

pub use stream::VersionStream;
use tidings_server::StreamEnd;

use crate::metrics::WatchMetrics;
use crate::model::{UserId, UserVersion};
use directory::WatchDirectory;
use parking_lot::Mutex;

/// Limits of the streams of one instance.
#[derive(Clone, Copy, Debug)]
pub struct WatchLimits {
    /// Limit of ids watched by all streams together; an id counts once for each stream.
    pub ids: usize,
    /// Time without another frame after which a stream sends a heartbeat.
    pub heartbeat: Duration,
}

/// Error of a registration that would exceed [`WatchLimits::ids`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchLimitReached;

/// All streams of one instance.
#[derive(Debug)]
pub struct WatchRegistry {
    limits: WatchLimits,
    directory: Mutex<WatchDirectory>,
    metrics: WatchMetrics,
}

impl WatchRegistry {
    /// Creates a registry without streams.
    pub fn new(limits: WatchLimits) -> Arc<Self> {
        Arc::new(Self { limits, directory: Mutex::default(), metrics: WatchMetrics::new() })
    }

    /// Registers a stream, which gets all updates of these ids from the return on.
    ///
    /// The caller must call [`WatchRegistry::update`] with the current versions of all ids before
    /// it polls the stream.
    ///
    /// # Errors
    /// [`WatchLimitReached`]; then nothing is registered.
    pub fn register(
        self: &Arc<Self>,
        ids: &[UserId],
        stream_end: StreamEnd,
    ) -> Result<VersionStream, WatchLimitReached> {
        VersionStream::register(self, ids, stream_end)
    }

    /// Hands versions to the streams; returns how many are newer than those known. Never blocks.
    pub fn update(&self, versions: &[UserVersion]) -> usize {
        // Locks for each version, so that a long list does not delay other threads.
        versions.iter().filter(|version| self.directory.lock().update(version)).count()
    }

    /// Returns up to `limit` ids that follow `after`, each with the version that every stream has
    /// at least; -1 if none is known yet.
    pub fn known_versions(&self, after: Option<&UserId>, limit: usize) -> Vec<(UserId, i64)> {
        self.directory.lock().known_versions(after, limit)
    }

    /// The metrics of all streams.
    pub(crate) fn metrics(&self) -> &WatchMetrics {
        &self.metrics
    }
}
