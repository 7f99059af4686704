//! The results of a run: latencies, failures and lateness.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use crate::call::CallFailure;

/// Precision of recorded latencies.
const SIGNIFICANT_DIGITS: u8 = 3;
/// Longest recorded latency; longer ones, which no call timeout allows, are recorded as this.
const LATENCY_MAX: Duration = Duration::from_hours(1);
/// Delay after the intended start time from which a call counts as late: far above the delays that
/// the pacer and the scheduler of a busy machine cause.
const LATE_AFTER: Duration = Duration::from_millis(10);

/// A histogram of latencies.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

impl Latency {
    #[expect(clippy::expect_used, reason = "the bounds are constants, and a test makes one")]
    fn new() -> Self {
        Self(Histogram::new_with_bounds(1, micros(LATENCY_MAX), SIGNIFICANT_DIGITS).expect("the bounds of a histogram"))
    }

    fn record(&mut self, time: Duration) {
        self.0.saturating_record(micros(time).max(1));
    }

    /// Returns the latency that `percent` % of the calls do not exceed; zero if there was no call.
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_micros(self.0.value_at_percentile(percent))
    }

    /// Returns the longest latency.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }

    /// Returns the number of recorded latencies.
    pub fn count(&self) -> u64 {
        self.0.len()
    }
}

/// The results of a run.
#[derive(Clone, Debug)]
pub struct RunTally {
    /// Duration of the measurement.
    pub time: Duration,
    /// Latencies from the intended start time, to the responses of successful calls, and to the end
    /// of the wait for calls that timed out or were never sent. Other failures are not in it.
    pub latency: Latency,
    /// Successful calls whose responses arrived during the measurement.
    pub succeeded: u64,
    /// Items of these calls: more than one per call for batches.
    pub items: u64,
    /// Failed calls that were due during the measurement.
    pub failures: BTreeMap<CallFailure, u64>,
    /// Calls that were due but never started, because all callers were busy to the end.
    pub unsent: u64,
    /// Calls that started more than 10 ms late, because all callers were busy or the generator got
    /// no CPU.
    pub late: u64,
    /// The longest delay between an intended start time and the start.
    pub max_start_delay: Duration,
}

impl RunTally {
    /// Creates an empty tally of a measurement of this duration.
    pub fn new(time: Duration) -> Self {
        Self {
            time,
            latency: Latency::new(),
            succeeded: 0,
            items: 0,
            failures: BTreeMap::new(),
            unsent: 0,
            late: 0,
            max_start_delay: Duration::ZERO,
        }
    }

    /// Records a call that was due during the measurement.
    pub fn record_call(
        &mut self,
        intended: Instant,
        begun: Instant,
        ended: Instant,
        outcome: &Result<u64, CallFailure>,
    ) {
        let delay = begun.saturating_duration_since(intended);
        self.late += u64::from(delay > LATE_AFTER);
        self.max_start_delay = self.max_start_delay.max(delay);
        if outcome.as_ref().err().is_none_or(CallFailure::is_timeout) {
            self.latency.record(ended.saturating_duration_since(intended));
        }
        if let Err(failure) = outcome {
            *self.failures.entry(failure.clone()).or_default() += 1;
        }
    }

    /// Records a response that arrived during the measurement.
    pub fn record_response(&mut self, outcome: &Result<u64, CallFailure>) {
        if let Ok(items) = outcome {
            self.succeeded += 1;
            self.items += items;
        }
    }

    /// Records a call that was due but never started, and was given up after `waited`.
    pub fn record_unsent(&mut self, waited: Duration) {
        self.unsent += 1;
        self.latency.record(waited);
    }

    /// Merges the results of `other`.
    pub fn add(&mut self, other: &Self) {
        self.latency.0 += &other.latency.0;
        self.succeeded += other.succeeded;
        self.items += other.items;
        self.unsent += other.unsent;
        self.late += other.late;
        self.max_start_delay = self.max_start_delay.max(other.max_start_delay);
        for (failure, count) in &other.failures {
            *self.failures.entry(failure.clone()).or_default() += count;
        }
    }

    /// Returns the successful calls per second.
    pub fn rate(&self) -> f64 {
        per_second(self.succeeded, self.time)
    }

    /// Returns the items per second.
    pub fn items_rate(&self) -> f64 {
        per_second(self.items, self.time)
    }

    /// Returns the number of failed calls, unsent ones included.
    pub fn failed(&self) -> u64 {
        self.unsent + self.failures.values().sum::<u64>()
    }

    /// Returns the number of calls that were due during the measurement.
    pub fn calls(&self) -> u64 {
        let refused =
            self.failures.iter().filter(|(failure, _)| !failure.is_timeout()).map(|(_, count)| count).sum::<u64>();
        self.latency.count() + refused
    }

    /// Returns true if the generator held the rate: every call started, at most 1 % of them more
    /// than 10 ms late.
    pub fn rate_held(&self) -> bool {
        self.unsent == 0 && self.late * 100 <= self.calls()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(f64::EPSILON)
}
