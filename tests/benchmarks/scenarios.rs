//! Measures every scenario of `tidings bench`: its capacity, then its latency at half of that.

use std::sync::Arc;
use std::time::Duration;

use tidings_load::{LoadSpec, Pace, RunTally, SCENARIOS, Scenario, ScenarioSettings};

use crate::installation::Installation;
use crate::plan::{BATCH_CALLERS, CALLERS, Plan};
use crate::round::run_closed_loop;

/// Bound of calls in flight in the open loop.
const IN_FLIGHT: usize = 1000;

/// The result of one scenario.
pub(crate) struct ScenarioResult {
    pub(crate) name: &'static str,
    /// Callers of the closed loop.
    pub(crate) callers: usize,
    pub(crate) closed: RunTally,
    /// Calls per second of the open loop.
    pub(crate) rate: f64,
    pub(crate) open: RunTally,
}

/// Measures the scenarios one after the other.
pub(crate) async fn run(plan: Plan, installation: &Installation) -> Vec<ScenarioResult> {
    let mut results = Vec::new();
    for scenario in SCENARIOS {
        let Scenario { name, .. } = *scenario;
        eprintln!("{name} ...");
        let settings = ScenarioSettings::new(installation.address(scenario.service()), IN_FLIGHT);
        let call = scenario.prepare(&settings).await;
        let call = call.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        installation.wait_for_relay().await;
        let callers = if name.starts_with("batch-") { BATCH_CALLERS } else { CALLERS };
        let closed = run_closed_loop(plan, &call, callers).await;
        installation.wait_for_relay().await;
        // A whole number, and high enough for at least one call in the measured time.
        let rate = (closed.rate() / 2.0).floor().max(10.0);
        let load = LoadSpec {
            pace: Pace::Rate(rate),
            in_flight: IN_FLIGHT,
            warm_up: plan.warm_up,
            time: plan.open,
            grace: Duration::from_secs(5),
        };
        let open = tidings_load::run(&load, &call, &Arc::default()).await;
        results.push(ScenarioResult { name, callers, closed, rate, open });
    }
    results
}
