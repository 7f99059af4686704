//! The relay: brings to the tails what a writer could not, because Redis did not answer or the writer died.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::domain::Histories;

/// Relays every `tick` until told to stop. A step that fails is tried again at the next tick.
pub async fn run(histories: Histories, tick: Duration, stop: CancellationToken) {
    let mut ticks = interval(tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let outcome = loop {
            match histories.relay().await {
                Ok(true) if !stop.is_cancelled() => {}
                Ok(_) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        match outcome {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true; // said once, not four times a second
                tracing::warn!(error = %error, "the relay to the tails waits");
            }
            Err(_) => {}
        }
    }
}
