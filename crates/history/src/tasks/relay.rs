//! The tasks of the relay: one relays committed messages to the tails and to broadcast, one
//! measures the backlog.

use std::sync::Arc;
use std::time::Duration;

use tidings_server::health::{Health, HealthState};
use tidings_service::{repeat, repeat_on};
use tokio_util::sync::CancellationToken;

use crate::domain::{Error, Relay};

/// Health entry of the relay: NOT_SERVING while the oldest outbox row is older than 5 s.
pub const HEALTH: &str = "relay";
/// Interval at which the backlog is measured.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);
/// Age of the oldest outbox row above which the relay is unhealthy: it has missed many ticks.
const AGE_MAX: Duration = Duration::from_secs(5);

/// Relays outbox rows after every notification and every `tick`, until `stop`; then releases the
/// shards.
pub async fn run(relay: Arc<Relay>, tick: Duration, stop: CancellationToken) {
    let woken = async || relay.wait_for_work().await;
    repeat_on(woken, "relay to tails and broadcast", tick, stop, async || relay.step().await).await;
    relay.release_shards().await;
}

/// Measures the backlog of the outbox, for metrics and health, until `stop`.
pub async fn watch(relay: Arc<Relay>, health: Health, stop: CancellationToken) {
    repeat("relay backlog measurement", MEASURE_INTERVAL, stop, async || {
        let backlog = relay.backlog().await?;
        let state = if backlog.age > AGE_MAX { HealthState::NotServing } else { HealthState::Serving };
        health.set(HEALTH, state);
        Ok::<bool, Error>(false)
    })
    .await;
}
