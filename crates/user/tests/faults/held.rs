//! Fail-points that hold the first call that comes to them.

use std::sync::{Arc, Mutex, mpsc};

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::SOON;

/// A fail-point at which one call is held, or will be.
pub(crate) struct Held {
    arrived: Arc<Notify>,
    release: mpsc::Sender<()>,
}

impl Held {
    /// Holds the first call that comes to `point`; all others pass.
    pub(crate) fn first_at(point: &str) -> Self {
        let arrived = Arc::new(Notify::new());
        let (release, released) = mpsc::channel();
        let (tell, first) = (Arc::clone(&arrived), Mutex::new(Some(released)));
        fail::cfg_callback(point, move || {
            let Some(released) = first.lock().unwrap().take() else { return };
            tell.notify_one();
            // The runtime goes on without this thread.
            tokio::task::block_in_place(|| {
                let _ = released.recv();
            });
        })
        .unwrap();
        Self { arrived, release }
    }

    /// Waits until a call is held.
    pub(crate) async fn arrived(&self) {
        timeout(SOON, self.arrived.notified()).await.unwrap();
    }

    /// Lets it go on.
    pub(crate) fn release(self) {
        drop(self.release);
    }
}
