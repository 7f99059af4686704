//! The sweep: ends what is over, says that this instance lives, and finds out in which epoch it is.

use std::time::Duration;

use tidings_server::repeat;
use tokio_util::sync::CancellationToken;

use crate::domain::Locks;

/// Sweeps every `tick` until told to stop.
pub async fn run(locks: Locks, tick: Duration, stop: CancellationToken) {
    repeat("the sweep of the locks", tick, stop, async || locks.sweep().await).await;
}
