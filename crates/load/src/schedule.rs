//! The intended start times of the calls, and the pacer that releases them when they are due.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::spec::{LoadSpec, Pace};

/// The shortest pause of the pacer, and so the longest delay that it adds to a call.
const TICK: Duration = Duration::from_micros(100);

/// The schedule of one run.
///
/// In an open loop the pacer *releases* calls when they are due, and callers *take* them.
#[derive(Debug)]
pub(crate) struct CallSchedule {
    pace: Pace,
    begin: Instant,
    /// End of the warm-up.
    measure_from: Instant,
    /// End of the measurement: no call is due from here on.
    measure_to: Instant,
    grace: Duration,
    /// Open loop: a permit for each released call that is not taken yet.
    due: Semaphore,
    /// Calls released so far.
    released: AtomicU64,
    /// Calls taken so far.
    taken: AtomicU64,
    /// Time at which the calls not taken by then were given up.
    closed: Mutex<Option<Instant>>,
}

impl CallSchedule {
    /// Creates the schedule of a run that begins at `begin`.
    pub(crate) fn new(load: &LoadSpec, begin: Instant) -> Self {
        let from = begin + load.warm_up;
        Self {
            pace: load.pace,
            begin,
            measure_from: from,
            measure_to: from + load.time,
            grace: load.grace,
            due: Semaphore::new(0),
            released: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            closed: Mutex::new(None),
        }
    }

    /// Waits for the next call; returns its number and its intended start time, `None` at the end.
    pub(crate) async fn next_call(&self) -> Option<(u64, Instant)> {
        let Pace::Rate(rate) = self.pace else {
            let now = Instant::now();
            return (now < self.measure_to).then(|| (self.taken.fetch_add(1, Ordering::Relaxed), now));
        };
        self.due.acquire().await.ok()?.forget();
        let number = self.taken.fetch_add(1, Ordering::AcqRel);
        Some((number, self.intended(number, rate)))
    }

    /// Returns true if `moment` is within the measurement.
    pub(crate) fn is_measured(&self, moment: Instant) -> bool {
        (self.measure_from..self.measure_to).contains(&moment)
    }

    /// Returns the calls of the measurement that no caller took: the intended start time of each,
    /// and the time at which it was given up.
    pub(crate) fn unsent(&self) -> impl Iterator<Item = (Instant, Instant)> {
        let rate = if let Pace::Rate(rate) = self.pace { rate } else { 1.0 };
        let closed = self.closed.lock().unwrap_or(self.measure_to);
        (self.taken.load(Ordering::Acquire)..self.released.load(Ordering::Acquire))
            .map(move |number| (self.intended(number, rate), closed))
            .filter(|(intended, _)| self.is_measured(*intended))
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers of calls are far below 2^53")]
    fn intended(&self, number: u64, rate: f64) -> Instant {
        self.begin + Duration::from_secs_f64(number as f64 / rate)
    }

    /// Returns the number of calls whose intended start time is not after `moment`.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count: neither negative nor large")]
    fn due_at(&self, moment: Instant, rate: f64) -> u64 {
        let elapsed = moment.min(self.measure_to).saturating_duration_since(self.begin).as_secs_f64();
        let mut count = (elapsed * rate) as u64;
        // The product may have been rounded down, or the next call be due exactly now.
        while self.intended(count, rate) <= moment && self.intended(count, rate) < self.measure_to {
            count += 1;
        }
        count
    }

    /// Releases all calls below number `due`.
    fn release(&self, due: u64) {
        let more = due - self.released.swap(due, Ordering::AcqRel).min(due);
        self.due.add_permits(usize::try_from(more).unwrap_or(0));
    }

    fn all_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire) >= self.released.load(Ordering::Acquire)
    }

    /// Gives up the calls that are not taken yet.
    fn close(&self) {
        *self.closed.lock() = Some(Instant::now());
        self.due.close();
    }
}

/// Releases the calls of an open loop when they are due, then waits up to the grace for the last of
/// them to be taken. `wait` sleeps until an instant.
pub(crate) async fn release_due_calls(schedule: &CallSchedule, wait: impl AsyncFn(Instant)) {
    let Pace::Rate(rate) = schedule.pace else { return };
    loop {
        let now = Instant::now();
        let due = schedule.due_at(now, rate);
        schedule.release(due);
        if now >= schedule.measure_to {
            break;
        }
        wait(schedule.intended(due, rate).max(now + TICK).min(schedule.measure_to)).await;
    }
    while !schedule.all_taken() && Instant::now() < schedule.measure_to + schedule.grace {
        wait(Instant::now() + 10 * TICK).await;
    }
    schedule.close();
}
