//! The relay: brings to the cache what a writer could not, because Redis did not answer or the writer died.

use std::time::Duration;

use tidings_server::repeat_on;
use tokio_util::sync::CancellationToken;

use crate::domain::Users;

/// Relays when something was written here, and every `tick`, until told to stop.
pub async fn run(users: Users, tick: Duration, stop: CancellationToken) {
    repeat_on(|| users.news(), "the relay to the cache", tick, stop, || users.relay()).await;
}
