//! One round of one candidate: the closed loop, and its figures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidings_load::{BenchCall, LoadSpec, Pace, RunTally};

use crate::plan::Plan;

/// The figures of one round of one candidate.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    /// Completed operations per second.
    pub(crate) rate: f64,
    /// p50 and p99; `None` if pgbench measured, or if nothing was completed.
    pub(crate) latency: Option<(Duration, Duration)>,
    /// Number of failed operations by cause.
    pub(crate) failures: BTreeMap<String, u64>,
}

impl From<&RunTally> for Round {
    fn from(tally: &RunTally) -> Self {
        let latency = (tally.latency.percentile(50.0), tally.latency.percentile(99.0));
        let known = tally.latency.count() > 0;
        Self { rate: tally.rate(), latency: known.then_some(latency), failures: failures(tally) }
    }
}

/// Returns the number of failed calls by cause.
pub(crate) fn failures(tally: &RunTally) -> BTreeMap<String, u64> {
    let unsent = (tally.unsent > 0).then(|| ("never sent".to_owned(), tally.unsent));
    tally.failures.iter().map(|(failure, count)| (failure.to_string(), *count)).chain(unsent).collect()
}

/// Runs one round of a closed loop.
pub(crate) async fn run_closed_loop(plan: Plan, call: &BenchCall, callers: usize) -> RunTally {
    let load = LoadSpec {
        pace: Pace::Closed,
        in_flight: callers,
        warm_up: plan.warm_up,
        time: plan.round,
        grace: Duration::ZERO,
    };
    tidings_load::run(&load, call, &Arc::default()).await
}

/// Returns the median; of an even number of values, the upper one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns the median, over the rounds, of the ratio of the two rates.
pub(crate) fn ratio(own: &[Round], other: &[Round]) -> f64 {
    median(own.iter().zip(other).map(|(own, other)| own.rate / other.rate).collect())
}
