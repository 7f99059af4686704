//! Spares callers the wait for a Redis that does not answer.
//!
//! A lane whose connection was closed fails its calls at once and is made anew by its keeper. What that does not spare is
//! the *wait*: a Redis that stands still costs every caller the time-out for its answer, and one that is gone costs every
//! caller the time-out for a lane. So there is one breaker before all lanes of a service: once enough calls were in vain it
//! opens, and while it is open a call fails in microseconds, with nothing sent. The closed breaker costs a call an atomic or
//! two.
//!
//! It lets one call through now and then, after pauses that grow; the answer of that one closes it. And it lets one through
//! at once when a probe of a keeper or of the health succeeds after one that did not: probes go past the breaker.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::RngExt as _;
use tokio::time::Instant;

use crate::numbers::Numbers;

/// So many time-outs in a row open it: fewer may be one slow command of somebody else.
const IN_VAIN_MAX: u32 = 5;
/// How long calls are counted together, from the first of them that failed on.
const SECOND: Duration = Duration::from_secs(1);
/// So many calls have to be counted before half of them says anything.
const CALLS_MIN: u64 = 20;
/// The first pause before a call is let through; it doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How much a pause is shortened or lengthened at random, in percent, so that many instances do not try together.
const JITTER_PERCENT: u32 = 20;

/// What the breaker does with the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// It passes.
    Closed,
    /// It fails at once.
    Open,
    /// It passes, alone, and decides.
    HalfOpen,
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        })
    }
}

/// A time in which the breaker was closed, or open: they alternate. Every call belongs to the one in which it was let
/// through, and what becomes of it later says nothing about another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Term(u64);

impl Term {
    /// Of a probe, which goes past the breaker and counts in no term.
    pub(crate) const PROBE: Self = Self(u64::MAX);

    fn is_open(self) -> bool {
        self.0 % 2 == 1
    }
}

/// The breaker before the lanes of one service.
#[derive(Debug)]
pub(crate) struct Breaker {
    term: AtomicU64,
    /// Calls that were answered, in all.
    answered: AtomicU64,
    /// Time-outs in a row.
    in_vain: AtomicU32,
    /// What only calls that fail, and calls while it is open, look at.
    rest: Mutex<Rest>,
    numbers: Arc<Numbers>,
}

#[derive(Debug)]
struct Rest {
    second: Second,
    /// While it is open: when the next call is let through.
    next: Instant,
    /// While it is open: the pause after that.
    pause: Duration,
    /// While it is open: whether a probe has half-opened it, and none has failed since.
    probed: bool,
}

/// The calls since one failed.
#[derive(Debug)]
struct Second {
    begun: Instant,
    answered_before: u64,
    failed: u64,
}

impl Breaker {
    pub(crate) fn new(numbers: Arc<Numbers>) -> Self {
        let now = Instant::now();
        let second = Second { begun: now, answered_before: 0, failed: 0 };
        Self {
            term: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            in_vain: AtomicU32::new(0),
            rest: Mutex::new(Rest { second, next: now, pause: PAUSE_MIN, probed: false }),
            numbers,
        }
    }

    /// Lets a call through, or not.
    pub(crate) fn admit(&self) -> Option<Term> {
        let term = self.now();
        if term.is_open() { self.admit_one() } else { Some(term) }
    }

    #[cold]
    fn admit_one(&self) -> Option<Term> {
        let mut rest = self.rest();
        let (term, now) = (self.now(), Instant::now());
        if !term.is_open() {
            return Some(term);
        }
        if now < rest.next {
            return None;
        }
        rest.next = now + jittered(rest.pause);
        rest.pause = (rest.pause * 2).min(PAUSE_MAX);
        Some(term)
    }

    /// A call was answered, whatever the answer.
    pub(crate) fn answered(&self, term: Term) {
        if term != self.now() {
            return;
        }
        if term.is_open() {
            return self.close(term);
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
        // Looked at before it is written: usually there is nothing to write, and many do this at once.
        if self.in_vain.load(Ordering::Relaxed) != 0 {
            self.in_vain.store(0, Ordering::Relaxed);
        }
    }

    /// A call got no answer, or no lane; `timed_out` if it waited for it in vain.
    #[cold]
    pub(crate) fn failed(&self, term: Term, timed_out: bool) {
        let mut rest = self.rest();
        if term != self.now() || term.is_open() {
            return; // one that was let through alone: when the next will be was settled then
        }
        let answered = self.answered.load(Ordering::Relaxed);
        if rest.second.failed == 0 || rest.second.begun.elapsed() > SECOND {
            rest.second = Second { begun: Instant::now(), answered_before: answered, failed: 0 };
        }
        rest.second.failed += 1;
        let (failed, calls) = (rest.second.failed, rest.second.failed + answered - rest.second.answered_before);
        let in_vain = self.in_vain.fetch_add(u32::from(timed_out), Ordering::Relaxed) + u32::from(timed_out);
        if in_vain >= IN_VAIN_MAX {
            self.open(rest, "time-outs in a row");
        } else if calls >= CALLS_MIN && failed * 2 >= calls {
            self.open(rest, "half of the calls of a second failed");
        }
    }

    /// A probe was answered, or not: the first that is lets a call through.
    pub(crate) fn probed(&self, answered: bool) {
        if !self.now().is_open() {
            return;
        }
        let mut rest = self.rest();
        if answered && !rest.probed {
            (rest.next, rest.pause) = (Instant::now(), PAUSE_MIN);
        }
        rest.probed = answered;
    }

    /// What it does with the next call.
    pub(crate) fn state(&self) -> BreakerState {
        if !self.now().is_open() {
            BreakerState::Closed
        } else if Instant::now() < self.rest().next {
            BreakerState::Open
        } else {
            BreakerState::HalfOpen
        }
    }

    fn open(&self, mut rest: MutexGuard<'_, Rest>, why: &str) {
        (rest.next, rest.pause, rest.probed) = (Instant::now() + jittered(PAUSE_MIN), PAUSE_MIN * 2, false);
        rest.second.failed = 0;
        self.term.fetch_add(1, Ordering::Release);
        self.numbers.breaker_opened();
        tracing::warn!(why, "redis breaker open");
    }

    #[cold]
    fn close(&self, term: Term) {
        let _rest = self.rest();
        if term == self.now() {
            self.in_vain.store(0, Ordering::Relaxed);
            self.term.fetch_add(1, Ordering::Release);
            self.numbers.breaker_closed();
            tracing::info!("redis breaker closed");
        }
    }

    fn now(&self) -> Term {
        Term(self.term.load(Ordering::Acquire))
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn jittered(pause: Duration) -> Duration {
    pause * rand::rng().random_range(100 - JITTER_PERCENT..=100 + JITTER_PERCENT) / 100
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(Numbers::new())
    }

    /// Calls that wait in vain until it is open.
    fn opened() -> Breaker {
        let breaker = breaker();
        for _ in 0..IN_VAIN_MAX {
            breaker.failed(breaker.admit().unwrap(), true);
        }
        assert_eq!((breaker.admit(), breaker.state()), (None, BreakerState::Open));
        breaker
    }

    /// How long it takes until a call is let through.
    async fn pause(breaker: &Breaker) -> (Duration, Term) {
        let begun = Instant::now();
        loop {
            if let Some(term) = breaker.admit() {
                return (begun.elapsed(), term);
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn five_time_outs_in_a_row_open_it_and_four_do_not_nor_failures_that_cost_no_time() {
        let breaker = breaker();
        for _ in 0..100 {
            for _ in 0..IN_VAIN_MAX - 1 {
                breaker.failed(breaker.admit().unwrap(), true);
            }
            breaker.answered(breaker.admit().unwrap());
            advance(SECOND).await; // so that it is not half of a second's calls
        }
        for _ in 0..CALLS_MIN - 1 {
            breaker.failed(breaker.admit().unwrap(), false);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);

        advance(2 * SECOND).await;
        for _ in 0..IN_VAIN_MAX {
            breaker.failed(breaker.admit().unwrap(), true);
        }
        assert_eq!((breaker.admit(), breaker.state()), (None, BreakerState::Open));
    }

    #[tokio::test(start_paused = true)]
    async fn half_of_at_least_twenty_calls_of_one_second_open_it_and_a_third_does_not() {
        // One of so many calls fails, and so much time passes between two.
        let calls_until_open = async |one_of: u64, between: Duration| {
            let breaker = breaker();
            for call in 0..1000 {
                let Some(term) = breaker.admit() else { return Some(call) };
                if call % one_of == 0 {
                    breaker.failed(term, false);
                } else {
                    breaker.answered(term);
                }
                advance(between).await;
            }
            None
        };
        let at_once = Duration::from_millis(1);

        assert_eq!(calls_until_open(1, at_once).await, Some(20));
        assert_eq!(calls_until_open(2, at_once).await, Some(21), "the first that fails after twenty");
        assert_eq!(calls_until_open(3, at_once).await, None);
        assert_eq!(calls_until_open(1, SECOND / 10).await, None, "too few in a second");
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_one_lets_one_call_through_after_250_ms_then_after_pauses_that_double_up_to_5_s() {
        let breaker = opened();
        for wanted in [250, 500, 1000, 2000, 4000, 5000, 5000] {
            let (paused, term) = pause(&breaker).await;
            let (low, high) = (Duration::from_millis(wanted * 80 / 100), Duration::from_millis(wanted * 120 / 100 + 2));
            assert!((low..=high).contains(&paused), "{paused:?} instead of {wanted} ms");
            assert_eq!(breaker.admit(), None, "one at a time");
            breaker.failed(term, true);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_of_the_one_closes_it_and_the_next_outage_begins_with_a_short_pause() {
        let breaker = opened();
        let (_, stale) = (pause(&breaker).await, Term(0));
        let (_, term) = pause(&breaker).await;

        breaker.answered(stale);
        assert_eq!(breaker.admit(), None, "an answer of before says nothing");
        breaker.answered(term);
        assert_eq!(breaker.state(), BreakerState::Closed);
        for _ in 0..100 {
            breaker.failed(stale, true);
            breaker.failed(term, true);
        }
        assert_eq!(breaker.state(), BreakerState::Closed, "nor does what is still in vain from before");

        for _ in 0..IN_VAIN_MAX {
            breaker.failed(breaker.admit().unwrap(), true);
        }
        assert!(pause(&breaker).await.0 <= PAUSE_MIN * 3 / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_goes_away_unanswered_leaves_it_to_the_next() {
        let breaker = opened();
        let _gone = pause(&breaker).await;

        let (paused, term) = pause(&breaker).await;
        assert!(paused <= PAUSE_MIN * 3, "{paused:?}");
        breaker.answered(term);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_probe_that_succeeds_half_opens_it_at_once_and_those_after_it_do_not() {
        let breaker = opened();
        for _ in 0..5 {
            pause(&breaker).await;
        }
        for round in 0..3 {
            breaker.probed(false);
            assert_eq!(breaker.admit(), None);
            breaker.probed(true);
            assert_eq!(breaker.state(), BreakerState::HalfOpen);
            assert!(breaker.admit().is_some(), "{round}");
            breaker.probed(true);
            assert_eq!(breaker.admit(), None, "probes are answered, calls are not: the pauses are what helps");
            assert!(pause(&breaker).await.0 <= PAUSE_MIN * 3 / 2);
        }
        breaker.probed(false);
        breaker.probed(true);
        breaker.answered(breaker.admit().unwrap());
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
