//! Every scenario of Tidings by itself: how much can be done, and how long it takes at half of that.

use std::sync::Arc;
use std::time::Duration;

use tidings::bench::{names, prepare};
use tidings::load::{self, Load, Pace, Tally};

use crate::Plan;
use crate::contest::closed;
use crate::contests::{BATCHING, CALLERS};
use crate::installation::Installation;

/// Most calls under way at once in the open loop.
const IN_FLIGHT: usize = 1000;

/// What was found of a scenario.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    /// Callers of the closed loop.
    pub(crate) callers: usize,
    pub(crate) closed: Tally,
    /// Calls a second that were asked for, and what came of it.
    pub(crate) half: f64,
    pub(crate) open: Tally,
}

/// Measures them one after the other.
pub(crate) async fn run(plan: Plan, ours: &Installation) -> Vec<Entry> {
    let mut entries = Vec::new();
    for name in names() {
        eprintln!("{name} ...");
        let call = prepare(name, ours.address(tidings::bench::service(name)), IN_FLIGHT).await;
        let call = call.unwrap_or_else(|fault| panic!("{name}: {fault}"));
        ours.quiet().await;
        let callers = if name.starts_with("batch-") { BATCHING } else { CALLERS };
        let closed = closed(plan, &call, callers).await;
        ours.quiet().await;
        // Whole calls, and at least one in the time.
        let half = (closed.rate() / 2.0).floor().max(10.0);
        let load = Load {
            pace: Pace::Rate(half),
            in_flight: IN_FLIGHT,
            warm_up: plan.warm_up,
            time: plan.open,
            grace: Duration::from_secs(5),
        };
        let open = load::run(&load, &call, &Arc::default()).await;
        entries.push(Entry { name, callers, closed, half, open });
    }
    entries
}
