//! Sweep: ends expired entries, reports this instance as live, and finds its epoch.

use std::time::Duration;

use tidings_service::repeat;
use tokio_util::sync::CancellationToken;

use crate::domain::LockManager;

/// Sweeps every `tick` until `stop`.
pub async fn run(locks: LockManager, tick: Duration, stop: CancellationToken) {
    repeat("lock sweep", tick, stop, async || locks.sweep().await).await;
}
