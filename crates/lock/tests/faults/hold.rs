//! Stops whoever comes to a point of the code first, and only this one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// How long somebody may take to come.
const PATIENCE: Duration = Duration::from_secs(15);

/// Somebody who is held, or will be. Dropping it lets go.
pub(crate) struct Hold {
    came: Arc<Notify>,
    _hand: Sender<()>,
}

impl Hold {
    /// Holds the first who comes to `point`.
    pub(crate) fn first_at(point: &str) -> Self {
        let came = Arc::new(Notify::new());
        let (hand, let_go) = channel::<()>();
        let (arrived, first, let_go) = (Arc::clone(&came), AtomicBool::new(true), Mutex::new(let_go));
        let stop = move || {
            if first.swap(false, Ordering::Relaxed) {
                arrived.notify_one();
                // The runtime goes on without this thread.
                tokio::task::block_in_place(|| {
                    let _ = let_go.lock().unwrap().recv();
                });
            }
        };
        fail::cfg_callback(point, stop).unwrap();
        Self { came, _hand: hand }
    }

    /// Waits until somebody is held.
    pub(crate) async fn holds(&self) {
        timeout(PATIENCE, self.came.notified()).await.unwrap();
    }
}
