//! The load of a run: pace, callers and durations.

use std::time::Duration;

/// The rule by which calls start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Open loop: this many calls per second, evenly spaced.
    Rate(f64),
    /// Closed loop: each caller starts its next call when it has the response to its last.
    Closed,
}

/// The load of a run.
#[derive(Clone, Copy, Debug)]
pub struct LoadSpec {
    /// The rule by which calls start.
    pub pace: Pace,
    /// The number of callers, and so of concurrent calls. In an open loop a call that finds all of
    /// them busy starts late; its latency counts from its intended start time.
    pub in_flight: usize,
    /// Duration of the unmeasured start.
    pub warm_up: Duration,
    /// Duration of the measurement.
    pub time: Duration,
    /// Time after the measurement in which late calls may still start; the rest count as unsent.
    pub grace: Duration,
}
