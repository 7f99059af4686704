//! The relay: brings to the tails what a writer could not, because Redis did not answer or the writer died.

use std::time::Duration;

use tidings_server::repeat;
use tokio_util::sync::CancellationToken;

use crate::domain::Histories;

/// Relays every `tick` until told to stop.
pub async fn run(histories: Histories, tick: Duration, stop: CancellationToken) {
    repeat("the relay to the tails", tick, stop, async || histories.relay().await).await;
}
