//! What runs without being called; started with the service and ended with it.

use std::time::{Duration, Instant};

use tidings_redis::{Args, OpenError, Role, Subscriber};
use tidings_server::health::{Health, State};
use tidings_server::repeat;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::domain::Broadcasts;

/// How often it is looked whether what is published is heard.
const LOOK: Duration = Duration::from_millis(500);
/// How long a repair may take before this instance is said to be broken: a new connection takes less than a second.
const LATE: Duration = Duration::from_secs(5);

/// Begins to hear what others publish.
pub fn listen(args: &Args, broadcasts: Broadcasts) -> Result<Subscriber, OpenError> {
    Subscriber::open(args, "broadcast", Role::State, move |ear, told| broadcasts.hear(ear, told))
}

/// Joins and leaves channels until told to stop.
pub async fn attend(broadcasts: Broadcasts, subscriber: Subscriber, stop: CancellationToken) {
    stop.run_until_cancelled(broadcasts.attend(subscriber)).await;
}

/// Fills rings that have missed something until told to stop.
pub async fn repair(broadcasts: Broadcasts, stop: CancellationToken) {
    stop.run_until_cancelled(broadcasts.repair()).await;
}

/// Compares the rings with Redis every `tick`, until told to stop.
pub async fn compare(broadcasts: Broadcasts, tick: Duration, stop: CancellationToken) {
    repeat("the comparison with redis", tick, stop, async || broadcasts.compare().await.map(|()| false)).await;
}

/// Says in the health of the service whether what is published is heard, and measures it, until told to stop.
///
/// While Redis is away the instance stays ready: it can not be better elsewhere. If Redis answers and nothing is heard,
/// it is.
pub async fn watch(broadcasts: Broadcasts, health: Health, stop: CancellationToken) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut deaf_since = None;
    while stop.run_until_cancelled(looks.tick()).await.is_some() {
        broadcasts.measure();
        deaf_since = if broadcasts.is_deaf().await { deaf_since.or_else(|| Some(Instant::now())) } else { None };
        let late = deaf_since.is_some_and(|since| since.elapsed() > LATE);
        health.set(Health::READINESS, if late { State::NotServing } else { State::Serving });
    }
}
