//! Background tasks: they start with the service and end with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidings_redis::{Args, OpenError, Role, Subscriber};
use tidings_server::health::{Health, HealthState};
use tidings_service::repeat;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::domain::Hub;

/// Interval of the pub/sub health check.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Time without a pub/sub session after which the instance is not ready. Reconnecting takes less
/// than a second.
const DISCONNECTED_MAX: Duration = Duration::from_secs(5);

/// Opens the pub/sub connection and passes its notifications to `hub`.
pub fn subscribe(args: &Args, hub: Arc<Hub>) -> Result<Subscriber, OpenError> {
    Subscriber::open(args, "broadcast", Role::State, move |pubsub_channel, payload| {
        hub.receive(pubsub_channel, payload);
    })
}

/// Subscribes to and unsubscribes from pub/sub channels until `stop`.
pub async fn run_pubsub(hub: Arc<Hub>, subscriber: Subscriber, stop: CancellationToken) {
    stop.run_until_cancelled(hub.run_pubsub(subscriber)).await;
}

/// Fills rings that miss messages until `stop`.
pub async fn repair_rings(hub: Arc<Hub>, stop: CancellationToken) {
    stop.run_until_cancelled(hub.repair_rings()).await;
}

/// Compares the rings with Redis every `tick` until `stop`.
pub async fn compare_with_redis(hub: Arc<Hub>, tick: Duration, stop: CancellationToken) {
    repeat("comparison with redis", tick, stop, async || hub.compare_with_redis().await.map(|()| false)).await;
}

/// Updates readiness and the gauges until `stop`.
///
/// The instance is not ready if Redis has replied for 5 s while there was no pub/sub session. While
/// Redis is unavailable the instance stays ready, since other instances are no better.
pub async fn watch_pubsub(hub: Arc<Hub>, health: Health, stop: CancellationToken) {
    let mut checks = interval(CHECK_INTERVAL);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut disconnected_since = None;
    while stop.run_until_cancelled(checks.tick()).await.is_some() {
        hub.record_size();
        disconnected_since =
            if hub.is_disconnected().await { disconnected_since.or_else(|| Some(Instant::now())) } else { None };
        let broken = disconnected_since.is_some_and(|since| since.elapsed() > DISCONNECTED_MAX);
        health.set(Health::READINESS, if broken { HealthState::NotServing } else { HealthState::Serving });
    }
}
