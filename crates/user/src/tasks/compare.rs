//! Compares watched versions with Postgres, which finds the notifications that Redis lost.

use std::time::Duration;

use tidings_service::repeat_on;
use tokio_util::sync::CancellationToken;

use crate::domain::UserWatches;

/// Compares every `interval`, and whenever notifications may have been lost, until `stop`.
pub async fn run(watches: UserWatches, interval: Duration, stop: CancellationToken) {
    let compare = async || watches.compare().await.map(|()| false);
    repeat_on(|| watches.notifications_lost(), "comparison of watched versions", interval, stop, compare).await;
}
