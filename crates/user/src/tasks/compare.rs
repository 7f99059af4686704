//! Compares what is watched with Postgres: what Redis lost is found so.

use std::time::Duration;

use tidings_server::repeat_on;
use tokio_util::sync::CancellationToken;

use crate::domain::Watching;

/// Compares every `interval`, and whenever news may have been lost, until told to stop.
pub async fn run(watching: Watching, interval: Duration, stop: CancellationToken) {
    let compare = async || watching.compare().await.map(|()| false);
    repeat_on(|| watching.doubt(), "the comparison of versions", interval, stop, compare).await;
}
