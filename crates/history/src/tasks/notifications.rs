//! Notifications of new outbox rows from other instances, so that the relay need not wait for its
//! tick.

use std::sync::Arc;

use tidings_redis::{Args, OpenError, Role, Subscriber};
use tokio_util::sync::CancellationToken;

use crate::cache::OUTBOX_CHANNEL;
use crate::domain::Relay;
use crate::model::Shard;

/// Subscribes to the notifications. A lost one delays the relay until its next tick.
pub fn subscribe(args: &Args, relay: Arc<Relay>) -> Result<Subscriber, OpenError> {
    Subscriber::open(args, "history", Role::Cache, move |_, shard| {
        if let Some(shard) = str::from_utf8(&shard).ok().and_then(|text| Shard::new(text.parse().ok()?)) {
            relay.notify(shard);
        }
    })
}

/// Keeps the subscription until `stop`. Its begin and end need no reaction: the relay's tick finds
/// rows whose notification was lost.
pub async fn run(subscriber: Subscriber, stop: CancellationToken) {
    stop.run_until_cancelled(subscriber.keep_subscribed(&[OUTBOX_CHANNEL], |_| {})).await;
}
