//! Recheck of all waiters, because notifications may be lost, and so may the state in Redis.

use std::time::Duration;

use tidings_service::repeat;
use tokio_util::sync::CancellationToken;

use crate::domain::{Error, LockManager};

/// Rechecks every `tick`, and at once when a recheck is requested, until `stop`.
pub async fn run(locks: LockManager, tick: Duration, stop: CancellationToken) {
    repeat("waiter recheck", tick, stop.clone(), async || {
        locks.recheck().await?;
        let requested = stop.run_until_cancelled(locks.recheck_requested(tick)).await;
        Ok::<bool, Error>(requested.unwrap_or(false))
    })
    .await;
}
