//! Keeps this instance subscribed to its notification channel.

use tidings_redis::{Subscriber, SubscriptionEvent};
use tokio_util::sync::CancellationToken;

use crate::domain::LockManager;
use crate::leases;

/// Keeps the subscription until `stop`. Requests a recheck at each begin of it: notifications that
/// were published before are lost.
pub async fn run(locks: LockManager, subscriber: Subscriber, stop: CancellationToken) {
    let channel = leases::channel(locks.instance());
    let on_event = |event| {
        if event == SubscriptionEvent::Started {
            locks.on_subscribed();
        }
    };
    stop.run_until_cancelled(subscriber.keep_subscribed(&[channel], on_event)).await;
}
