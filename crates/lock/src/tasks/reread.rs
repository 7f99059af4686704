//! The re-read: looks after the places of all waiters, because news may be lost, and so may Redis.

use std::time::Duration;

use tidings_server::repeat;
use tokio_util::sync::CancellationToken;

use crate::domain::{Error, Locks};

/// Looks every `tick` and whenever there is a reason to, until told to stop.
pub async fn run(locks: Locks, tick: Duration, stop: CancellationToken) {
    repeat("the look after waiters", tick, stop.clone(), async || {
        locks.reread().await?;
        let asked = stop.run_until_cancelled(locks.asked_to_reread(tick)).await;
        Ok::<bool, Error>(asked.unwrap_or(false))
    })
    .await;
}
