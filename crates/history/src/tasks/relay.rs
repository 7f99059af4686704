//! The relay: brings to the tails and to broadcast what was committed, and says how far it is behind.

use std::sync::Arc;
use std::time::Duration;

use tidings_server::health::{Health, State};
use tidings_server::{repeat, repeat_on};
use tokio_util::sync::CancellationToken;

use crate::domain::{Error, Relay};

/// The entry of the health service that says whether what is committed is published.
pub const HEALTH: &str = "relay";
/// How often the backlog is measured.
const LOOK: Duration = Duration::from_secs(1);
/// A backlog older than this says that the relay does not do its job: it has missed many ticks.
const LATE: Duration = Duration::from_secs(5);

/// Relays at once when something was committed, and every `tick`, until told to stop; gives up its shards then.
pub async fn run(relay: Arc<Relay>, tick: Duration, stop: CancellationToken) {
    let news = async || relay.news().await;
    repeat_on(news, "the relay to tails and broadcast", tick, stop, async || relay.step().await).await;
    relay.leave().await;
}

/// Measures how far the relay is behind, for metrics and health, until told to stop.
pub async fn watch(relay: Arc<Relay>, health: Health, stop: CancellationToken) {
    repeat("the look at the outbox", LOOK, stop, async || {
        let backlog = relay.backlog().await?;
        let state = if backlog.age > LATE { State::NotServing } else { State::Serving };
        health.set(HEALTH, state);
        Ok::<bool, Error>(false)
    })
    .await;
}
