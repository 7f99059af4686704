//! When calls begin: each needs a ticket, which says when it should begin.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{Load, Pace};

/// The pacer wakes at most so often: a call begins so late because of it, and no later.
const TICK: Duration = Duration::from_micros(100);

/// The tickets of one run.
#[derive(Debug)]
pub(super) struct Tickets {
    pace: Pace,
    begin: Instant,
    /// From when on is counted.
    from: Instant,
    /// When no call should begin any more.
    to: Instant,
    grace: Duration,
    /// Open loop: a permit for each ticket that is due and not taken.
    due: Semaphore,
    /// How many were due so far.
    issued: AtomicU64,
    taken: AtomicU64,
    /// When it was given up to begin what was late.
    closed: Mutex<Option<Instant>>,
}

impl Tickets {
    /// Those of a run that begins at `begin`.
    pub(super) fn new(load: &Load, begin: Instant) -> Self {
        let from = begin + load.warm_up;
        Self {
            pace: load.pace,
            begin,
            from,
            to: from + load.time,
            grace: load.grace,
            due: Semaphore::new(0),
            issued: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            closed: Mutex::new(None),
        }
    }

    /// Waits for the next ticket: its number, and when its call should begin. `None`: there are no more.
    pub(super) async fn take(&self) -> Option<(u64, Instant)> {
        let Pace::Rate(rate) = self.pace else {
            let now = Instant::now();
            return (now < self.to).then(|| (self.taken.fetch_add(1, Ordering::Relaxed), now));
        };
        self.due.acquire().await.ok()?.forget();
        let number = self.taken.fetch_add(1, Ordering::AcqRel);
        Some((number, self.intended(number, rate)))
    }

    /// Whether what is at this moment is counted: not in the warm-up, and not when all is over.
    pub(super) fn counted(&self, moment: Instant) -> bool {
        (self.from..self.to).contains(&moment)
    }

    /// The tickets that are counted and that nobody took: when each call should have begun, and when it was given up.
    pub(super) fn unsent(&self) -> impl Iterator<Item = (Instant, Instant)> {
        let rate = if let Pace::Rate(rate) = self.pace { rate } else { 1.0 };
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(self.to);
        (self.taken.load(Ordering::Acquire)..self.issued.load(Ordering::Acquire))
            .map(move |number| (self.intended(number, rate), closed))
            .filter(|(intended, _)| self.counted(*intended))
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers of calls are far below 2^53")]
    fn intended(&self, number: u64, rate: f64) -> Instant {
        self.begin + Duration::from_secs_f64(number as f64 / rate)
    }

    /// How many calls should have begun at a moment.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count: neither negative nor large")]
    fn due_at(&self, moment: Instant, rate: f64) -> u64 {
        let elapsed = moment.min(self.to).saturating_duration_since(self.begin).as_secs_f64();
        let mut count = (elapsed * rate) as u64;
        // Where the product was rounded down, or the next one is due just now.
        while self.intended(count, rate) <= moment && self.intended(count, rate) < self.to {
            count += 1;
        }
        count
    }

    /// Hands out what is due.
    fn issue(&self, due: u64) {
        let more = due - self.issued.swap(due, Ordering::AcqRel).min(due);
        self.due.add_permits(usize::try_from(more).unwrap_or(0));
    }

    fn all_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire) >= self.issued.load(Ordering::Acquire)
    }

    /// What is not taken now is not taken any more.
    fn close(&self) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.due.close();
    }
}

/// Hands out the tickets of an open loop when they are due, to the end; then gives those that are late their grace.
/// `wait` waits until a moment.
pub(super) async fn pace(tickets: &Tickets, wait: impl AsyncFn(Instant)) {
    let Pace::Rate(rate) = tickets.pace else { return };
    loop {
        let now = Instant::now();
        let due = tickets.due_at(now, rate);
        tickets.issue(due);
        if now >= tickets.to {
            break;
        }
        wait(tickets.intended(due, rate).max(now + TICK).min(tickets.to)).await;
    }
    while !tickets.all_taken() && Instant::now() < tickets.to + tickets.grace {
        wait(Instant::now() + 10 * TICK).await;
    }
    tickets.close();
}
