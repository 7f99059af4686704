//! The extent of the measurements: rounds, durations and callers.

use std::time::Duration;

/// Concurrent callers, unless a comparison has its own number.
pub(crate) const CALLERS: usize = 64;
/// Subscribers of the publish comparison.
pub(crate) const SUBSCRIBERS: u32 = 100;
/// Concurrent callers of batches of a hundred: enough to keep the services busy without overload.
pub(crate) const BATCH_CALLERS: usize = 8;

/// Number and durations of the measurements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// The figures are meaningless.
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) warm_up: Duration,
    /// Measured time of a round.
    pub(crate) round: Duration,
    /// Measured time of an open loop.
    pub(crate) open: Duration,
}

/// The measurements of BENCHMARKS.md.
pub(crate) const FULL: Plan = Plan {
    quick: false,
    rounds: 5,
    warm_up: Duration::from_millis(500),
    round: Duration::from_secs(2),
    open: Duration::from_secs(4),
};

/// A check that everything works.
pub(crate) const QUICK: Plan = Plan {
    quick: true,
    rounds: 1,
    warm_up: Duration::from_millis(50),
    round: Duration::from_millis(200),
    open: Duration::from_millis(200),
};
