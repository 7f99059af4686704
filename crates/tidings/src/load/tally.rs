//! What became of the calls.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use tidings_status::{Failure, code_name};
use tokio::time::Instant;
use tonic::{Code, Status};

/// Three digits of each latency are kept.
const DIGITS: u8 = 3;
/// Longest latency that is kept as it is; longer ones count as this. No call may take so long.
const LONGEST: Duration = Duration::from_hours(1);
/// A call that begins later than this was not sent when it should have been: far above what the pacer and the scheduler
/// of a busy machine cost.
const LATE: Duration = Duration::from_millis(10);

/// Why a call was not answered well.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fault {
    /// The name of its code, e.g. `UNAVAILABLE`; `OK` where the answer itself says no.
    pub code: &'static str,
    /// Its reason, e.g. `STORE_AWAY`; what the transport said if it had none.
    pub reason: String,
}

impl Fault {
    /// An answer that says no.
    pub fn answer(reason: impl Into<String>) -> Self {
        Self { code: code_name(Code::Ok), reason: reason.into() }
    }

    /// No answer within the time that a call has.
    fn is_late(&self) -> bool {
        self.code == code_name(Code::DeadlineExceeded)
    }
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        let Failure { code, reason, message, .. } = Failure::from(&status);
        Self { code: code_name(code), reason: if reason.is_empty() { message } else { reason } }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.reason)
    }
}

/// Latencies: how many took how long.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

impl Latency {
    #[expect(clippy::expect_used, reason = "the bounds are constants, and a test makes one")]
    fn new() -> Self {
        Self(Histogram::new_with_bounds(1, micros(LONGEST), DIGITS).expect("the bounds of a histogram"))
    }

    fn record(&mut self, time: Duration) {
        self.0.saturating_record(micros(time).max(1));
    }

    /// The latency that so many of a hundred calls do not exceed; nothing if there was no call.
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_micros(self.0.value_at_percentile(percent))
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }

    /// How many are counted.
    pub fn count(&self) -> u64 {
        self.0.len()
    }
}

/// Everything that is known of a run.
#[derive(Clone, Debug)]
pub struct Tally {
    /// How long was counted.
    pub time: Duration,
    /// From when a call should have begun to its answer; of good answers, and of those that did not come in time: a call
    /// that timed out, or was never sent, counts with as long as it was waited for. Refusals are counted, not timed.
    pub latency: Latency,
    /// Good answers that came while it was counted.
    pub answers: u64,
    /// How many things these answers did: more than one each where a call is a batch.
    pub items: u64,
    /// Calls that should have begun while it was counted, and were not answered well.
    pub faults: BTreeMap<Fault, u64>,
    /// Calls that should have begun and never did, because all callers were busy to the end.
    pub unsent: u64,
    /// Calls that began more than 10 ms late, because all callers were busy or the generator got no CPU.
    pub late: u64,
    /// By how much the latest began too late.
    pub latest: Duration,
}

impl Tally {
    /// Nothing yet.
    pub fn new(time: Duration) -> Self {
        Self {
            time,
            latency: Latency::new(),
            answers: 0,
            items: 0,
            faults: BTreeMap::new(),
            unsent: 0,
            late: 0,
            latest: Duration::ZERO,
        }
    }

    /// A call that should have begun while it was counted.
    pub fn call(&mut self, intended: Instant, begun: Instant, ended: Instant, answer: &Result<u64, Fault>) {
        let lateness = begun.saturating_duration_since(intended);
        self.late += u64::from(lateness > LATE);
        self.latest = self.latest.max(lateness);
        if answer.as_ref().err().is_none_or(Fault::is_late) {
            self.latency.record(ended.saturating_duration_since(intended));
        }
        if let Err(fault) = answer {
            *self.faults.entry(fault.clone()).or_default() += 1;
        }
    }

    /// An answer that came while it was counted.
    pub fn arrival(&mut self, answer: &Result<u64, Fault>) {
        if let Ok(items) = answer {
            self.answers += 1;
            self.items += items;
        }
    }

    /// A call that should have begun, and was given up after so long.
    pub fn unsent(&mut self, waited: Duration) {
        self.unsent += 1;
        self.latency.record(waited);
    }

    /// Takes what another one counted.
    pub fn add(&mut self, other: &Self) {
        self.latency.0 += &other.latency.0;
        self.answers += other.answers;
        self.items += other.items;
        self.unsent += other.unsent;
        self.late += other.late;
        self.latest = self.latest.max(other.latest);
        for (fault, count) in &other.faults {
            *self.faults.entry(fault.clone()).or_default() += count;
        }
    }

    /// Good answers a second.
    pub fn rate(&self) -> f64 {
        per_second(self.answers, self.time)
    }

    /// Things done a second.
    pub fn items_rate(&self) -> f64 {
        per_second(self.items, self.time)
    }

    /// Calls that should have been answered well and were not.
    pub fn failed(&self) -> u64 {
        self.unsent + self.faults.values().sum::<u64>()
    }

    /// The calls that should have begun while it was counted.
    pub fn calls(&self) -> u64 {
        let refused = self.faults.iter().filter(|(fault, _)| !fault.is_late()).map(|(_, count)| count).sum::<u64>();
        self.latency.count() + refused
    }

    /// Whether calls began when they should have: all of them began, and at most one of a hundred more than 10 ms late.
    pub fn held_its_rate(&self) -> bool {
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
