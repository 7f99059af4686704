//! The circuit breaker before all lanes of a service.
//!
//! A lane whose connection was closed fails its calls immediately and is reconnected by its keeper.
//! The *wait* remains: a hanging Redis costs every caller the reply timeout, and an unreachable
//! one the wait for a lane. After enough timeouts the breaker opens, and calls fail within
//! microseconds without being sent. A closed breaker costs a call one or two atomic operations.
//!
//! The first reply closes an open breaker: to a probe of a keeper or of the health check, which
//! bypass the breaker and come twice a second, or to one of the single calls that it admits after
//! growing pauses.
//!
//! A timeout counts only if this process was on time (`transfer.rs`), so a machine without CPU for
//! this process opens no breaker.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::doubling_pause::DoublingPause;
use crate::metrics::Metrics;
use crate::ttl::jittered;

/// Consecutive timeouts that open the breaker. Fewer may be due to one slow command of another
/// client.
const TIMEOUTS_MAX: u32 = 5;
/// Length of the window for the failure ratio; starts with a failed call.
const WINDOW: Duration = Duration::from_secs(1);
/// Calls in the window below which the failure ratio is ignored.
const CALLS_MIN: u64 = 20;
/// First pause before a call is admitted.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest pause: bounds the time until a recovered Redis is used again.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Random variation of a pause in percent, so that instances do not retry simultaneously.
const JITTER_PERCENT: u64 = 20;

/// State of the breaker: its decision on the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// The call passes.
    Closed,
    /// The call fails immediately.
    Open,
    /// The call passes alone; its result decides.
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

/// Number of a period in which the breaker was closed (even) or open (odd). A call belongs to the
/// generation that admitted it; its result is ignored in later generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BreakerGeneration(u64);

impl BreakerGeneration {
    /// Generation of probes, which bypass the breaker and are not counted.
    pub(crate) const PROBE: Self = Self(u64::MAX);

    fn is_open(self) -> bool {
        self.0 % 2 == 1
    }
}

/// The circuit breaker before the lanes of one service.
#[derive(Debug)]
pub(crate) struct Breaker {
    generation: AtomicU64,
    /// Number of replies since the start.
    answered: AtomicU64,
    /// Number of consecutive timeouts.
    timeouts: AtomicU32,
    /// State that only failed calls, and calls while open, use.
    cold: Mutex<ColdState>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct ColdState {
    window: FailureWindow,
    /// While open: time at which the next call is admitted.
    next: Instant,
    /// While open: the pause after that call.
    pause: DoublingPause,
}

impl ColdState {
    /// Admits no call for the next pause.
    fn start_pause(&mut self, now: Instant) {
        self.next = now + jittered(self.pause.take(), JITTER_PERCENT, rand::random());
    }
}

/// Calls since the failure that started the window.
#[derive(Debug)]
struct FailureWindow {
    start: Instant,
    answered_before: u64,
    failed: u64,
}

impl Breaker {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        let now = Instant::now();
        let window = FailureWindow { start: now, answered_before: 0, failed: 0 };
        Self {
            generation: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            timeouts: AtomicU32::new(0),
            cold: Mutex::new(ColdState { window, next: now, pause: DoublingPause::new(PAUSE_MIN, PAUSE_MAX) }),
            metrics,
        }
    }

    /// Admits a call; `None` if it must fail immediately.
    pub(crate) fn admit(&self) -> Option<BreakerGeneration> {
        let generation = self.now();
        if generation.is_open() { self.admit_one() } else { Some(generation) }
    }

    #[cold]
    fn admit_one(&self) -> Option<BreakerGeneration> {
        let mut cold = self.cold.lock();
        let (generation, now) = (self.now(), Instant::now());
        if !generation.is_open() {
            return Some(generation);
        }
        if now < cold.next {
            return None;
        }
        cold.start_pause(now);
        Some(generation)
    }

    /// Records a reply to a call, including an error reply.
    pub(crate) fn answered(&self, generation: BreakerGeneration) {
        if generation != self.now() {
            return;
        }
        if generation.is_open() {
            return self.close(generation);
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
        // Read before write: usually nothing changes, and many calls do this concurrently.
        if self.timeouts.load(Ordering::Relaxed) != 0 {
            self.timeouts.store(0, Ordering::Relaxed);
        }
    }

    /// Records a call without a reply or without a lane; `timed_out` if it waited for the whole
    /// timeout.
    #[cold]
    pub(crate) fn failed(&self, generation: BreakerGeneration, timed_out: bool) {
        let mut cold = self.cold.lock();
        if generation != self.now() || generation.is_open() {
            return; // admitted while open: the time of the next call is already set
        }
        let answered = self.answered.load(Ordering::Relaxed);
        if cold.window.failed == 0 || cold.window.start.elapsed() > WINDOW {
            cold.window = FailureWindow { start: Instant::now(), answered_before: answered, failed: 0 };
        }
        cold.window.failed += 1;
        let (failed, calls) = (cold.window.failed, cold.window.failed + answered - cold.window.answered_before);
        let timeouts = self.timeouts.fetch_add(u32::from(timed_out), Ordering::Relaxed) + u32::from(timed_out);
        if timeouts >= TIMEOUTS_MAX {
            self.open(cold, "consecutive timeouts");
        } else if calls >= CALLS_MIN && failed * 2 >= calls {
            self.open(cold, "half of the calls within a second failed");
        }
    }

    /// Records the result of a probe.
    pub(crate) fn probed(&self, answered: bool) {
        let generation = self.now();
        if answered && generation.is_open() {
            self.close(generation);
        }
    }

    /// Returns the decision on the next call.
    pub(crate) fn state(&self) -> BreakerState {
        if !self.now().is_open() {
            BreakerState::Closed
        } else if Instant::now() < self.cold.lock().next {
            BreakerState::Open
        } else {
            BreakerState::HalfOpen
        }
    }

    fn open(&self, mut cold: MutexGuard<'_, ColdState>, reason: &str) {
        cold.pause.reset();
        cold.start_pause(Instant::now());
        cold.window.failed = 0;
        self.generation.fetch_add(1, Ordering::Release);
        self.metrics.breaker_opened();
        tracing::warn!(reason, "redis breaker open");
    }

    #[cold]
    fn close(&self, generation: BreakerGeneration) {
        let _cold = self.cold.lock();
        if generation == self.now() {
            self.timeouts.store(0, Ordering::Relaxed);
            self.generation.fetch_add(1, Ordering::Release);
            self.metrics.breaker_closed();
            tracing::info!("redis breaker closed");
        }
    }

    fn now(&self) -> BreakerGeneration {
        BreakerGeneration(self.generation.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(Metrics::new())
    }

    /// Opens a breaker by timeouts.
    fn opened() -> Breaker {
        let breaker = breaker();
        for _ in 0..TIMEOUTS_MAX {
            breaker.failed(breaker.admit().unwrap(), true);
        }
        assert_eq!((breaker.admit(), breaker.state()), (None, BreakerState::Open));
        breaker
    }

    /// Waits until a call is admitted; returns the time that this took.
    async fn pause(breaker: &Breaker) -> (Duration, BreakerGeneration) {
        let start = Instant::now();
        loop {
            if let Some(generation) = breaker.admit() {
                return (start.elapsed(), generation);
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Four timeouts do not open it, nor do failures that cost no time.
    #[tokio::test(start_paused = true)]
    async fn five_consecutive_timeouts_open_it() {
        let breaker = breaker();
        for _ in 0..100 {
            for _ in 0..TIMEOUTS_MAX - 1 {
                breaker.failed(breaker.admit().unwrap(), true);
            }
            breaker.answered(breaker.admit().unwrap());
            advance(WINDOW).await; // keeps the failure ratio below one half
        }
        for _ in 0..CALLS_MIN - 1 {
            breaker.failed(breaker.admit().unwrap(), false);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);

        advance(2 * WINDOW).await;
        for _ in 0..TIMEOUTS_MAX {
            breaker.failed(breaker.admit().unwrap(), true);
        }
        assert_eq!((breaker.admit(), breaker.state()), (None, BreakerState::Open));
    }

    /// A third does not open it.
    #[tokio::test(start_paused = true)]
    async fn half_of_twenty_calls_within_a_second_open_it() {
        // One of `one_of` calls fails; `between` passes after each call.
        let calls_until_open = async |one_of: u64, between: Duration| {
            let breaker = breaker();
            for call in 0..1000 {
                let Some(generation) = breaker.admit() else { return Some(call) };
                if call % one_of == 0 {
                    breaker.failed(generation, false);
                } else {
                    breaker.answered(generation);
                }
                advance(between).await;
            }
            None
        };
        let at_once = Duration::from_millis(1);

        assert_eq!(calls_until_open(1, at_once).await, Some(20));
        assert_eq!(calls_until_open(2, at_once).await, Some(21), "the first failure after twenty calls");
        assert_eq!(calls_until_open(3, at_once).await, None);
        assert_eq!(calls_until_open(1, WINDOW / 10).await, None, "too few in a second");
    }

    /// The pauses double up to 5 s.
    #[tokio::test(start_paused = true)]
    async fn an_open_breaker_admits_single_calls_after_growing_pauses() {
        let breaker = opened();
        for wanted in [250, 500, 1000, 2000, 4000, 5000, 5000] {
            let (paused, generation) = pause(&breaker).await;
            let (low, high) = (Duration::from_millis(wanted * 80 / 100), Duration::from_millis(wanted * 120 / 100 + 2));
            assert!((low..=high).contains(&paused), "{paused:?} instead of {wanted} ms");
            assert_eq!(breaker.admit(), None, "one at a time");
            breaker.failed(generation, true);
        }
    }

    /// The next outage starts with a short pause again.
    #[tokio::test(start_paused = true)]
    async fn a_reply_to_the_admitted_call_closes_it() {
        let breaker = opened();
        let (_, stale) = (pause(&breaker).await, BreakerGeneration(0));
        let (_, generation) = pause(&breaker).await;

        breaker.answered(stale);
        assert_eq!(breaker.admit(), None, "a reply of an earlier generation is ignored");
        breaker.answered(generation);
        assert_eq!(breaker.state(), BreakerState::Closed);
        for _ in 0..100 {
            breaker.failed(stale, true);
            breaker.failed(generation, true);
        }
        assert_eq!(breaker.state(), BreakerState::Closed, "failures of earlier generations are ignored");

        for _ in 0..TIMEOUTS_MAX {
            breaker.failed(breaker.admit().unwrap(), true);
        }
        assert!(pause(&breaker).await.0 <= PAUSE_MIN * 3 / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_abandoned_call_the_next_one_decides() {
        let breaker = opened();
        let _abandoned = pause(&breaker).await;

        let (paused, generation) = pause(&breaker).await;
        assert!(paused <= PAUSE_MIN * 3, "{paused:?}");
        breaker.answered(generation);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    /// Also late in an outage, when the pauses are long.
    #[tokio::test(start_paused = true)]
    async fn the_first_answered_probe_closes_it() {
        let breaker = opened();
        for _ in 0..5 {
            pause(&breaker).await;
        }
        breaker.probed(false);
        assert_eq!(breaker.admit(), None);

        breaker.probed(true);

        assert_eq!(breaker.state(), BreakerState::Closed);
        assert!(breaker.admit().is_some());
    }
}
