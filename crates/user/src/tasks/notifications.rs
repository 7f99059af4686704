//! Receives the notifications that the relays of all instances publish.

use tidings_redis::{Args, OpenError, Role, Subscriber, SubscriptionEvent};
use tokio_util::sync::CancellationToken;

use crate::cache::SERVICE;
use crate::cache::notifications::{CHANNEL, decode};
use crate::domain::UserWatches;

/// Opens the pub/sub connection; received versions go to `watches`.
pub fn open(args: &Args, watches: UserWatches) -> Result<Subscriber, OpenError> {
    Subscriber::open(args, SERVICE, Role::Cache, move |channel, message| watches.update(&decode(channel, &message)))
}

/// Keeps the subscription until `stop`, and reports each begin and end of it.
pub async fn run(watches: UserWatches, subscriber: Subscriber, stop: CancellationToken) {
    let on_event = |event| watches.set_subscribed(event == SubscriptionEvent::Started);
    stop.run_until_cancelled(subscriber.keep_subscribed(&[CHANNEL], on_event)).await;
}
