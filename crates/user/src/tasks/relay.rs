//! The relay of outbox rows: repairs the cache after writers that failed or found Redis
//! unavailable, and publishes the new versions to the watchers.
//!
//! Every instance relays all rows: soon after its own writes, and every tick for those of others.
//! It applies each user in its current state, unless its own process already has. The users of a
//! long backlog are removed from the cache instead. Then it publishes the versions and deletes the
//! rows.

use std::time::Duration;

use tidings_service::repeat_on;
use tokio_util::sync::CancellationToken;

use crate::domain::Users;

/// Relays after writes of this instance, and every `tick`, until `stop`.
pub async fn run(users: Users, tick: Duration, stop: CancellationToken) {
    repeat_on(|| users.relay_needed(), "user cache relay", tick, stop, || users.relay()).await;
}
