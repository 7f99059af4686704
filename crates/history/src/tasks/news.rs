//! Hears from other instances that they have committed something, so that the relay need not wait for its tick.

use std::sync::Arc;

use tidings_redis::{Args, OpenError, Role, Subscriber};
use tokio_util::sync::CancellationToken;

use crate::cache::NEWS;
use crate::domain::Relay;
use crate::model::Shard;

/// Begins to hear. What is lost costs the wait for a tick.
pub fn listen(args: &Args, relay: Arc<Relay>) -> Result<Subscriber, OpenError> {
    Subscriber::open(args, "history", Role::Cache, move |_, shard| {
        if let Some(shard) = str::from_utf8(&shard).ok().and_then(|text| Shard::new(text.parse().ok()?)) {
            relay.hear(shard);
        }
    })
}

/// Subscribes in every session until told to stop.
pub async fn run(ear: Subscriber, stop: CancellationToken) {
    let mut sessions = ear.sessions();
    let hearing = async {
        loop {
            let session = sessions.borrow_and_update().clone();
            if let Some(mut session) = session {
                let _ = session.subscribe(&[NEWS]).await; // if that fails there will be another session
            }
            if sessions.changed().await.is_err() {
                return;
            }
        }
    };
    stop.run_until_cancelled(hearing).await;
}
