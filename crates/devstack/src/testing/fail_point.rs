//! Pauses at fail-points.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::PATIENCE;

/// A pause of the first thread that reaches a fail-point; later threads pass. Dropping it resumes
/// the paused thread.
///
/// Does nothing unless the feature `failpoints` of the crate `fail` is enabled.
#[derive(Debug)]
pub struct FailPointPause {
    point: String,
    reached: Arc<Notify>,
    _resume: Sender<()>,
}

impl FailPointPause {
    /// Pauses the first thread that reaches `point`. The thread must belong to a multi-threaded
    /// runtime, which continues on others.
    ///
    /// # Panics
    ///
    /// If the fail-point cannot be configured.
    pub fn first_at(point: &str) -> Self {
        let reached = Arc::new(Notify::new());
        let (resume, resumed) = channel::<()>();
        let (notify, first) = (Arc::clone(&reached), Mutex::new(Some(resumed)));
        let pause = move || {
            let Some(resumed) = first.lock().take() else { return };
            notify.notify_one();
            tokio::task::block_in_place(|| {
                let _ = resumed.recv(); // an error once this pause is dropped
            });
        };
        fail::cfg_callback(point, pause).unwrap_or_else(|error| panic!("{point}: {error}"));
        Self { point: point.to_owned(), reached, _resume: resume }
    }

    /// Waits until a thread is paused.
    ///
    /// # Panics
    ///
    /// If no thread reaches the fail-point within [`PATIENCE`].
    pub async fn reached(&self) {
        let reached = timeout(PATIENCE, self.reached.notified()).await;
        assert!(reached.is_ok(), "not within {PATIENCE:?}: a thread reaches {}", self.point);
    }

    /// Resumes the paused thread.
    pub fn resume(self) {
        drop(self);
    }
}
