//! The relay: brings to the cache what a writer could not, because Redis did not answer or the writer died.

use std::time::Duration;

use tidings_server::repeat;
use tokio_util::sync::CancellationToken;

use crate::domain::Users;

/// Relays every `tick` until told to stop.
pub async fn run(users: Users, tick: Duration, stop: CancellationToken) {
    repeat("the relay to the cache", tick, stop, || users.relay()).await;
}
