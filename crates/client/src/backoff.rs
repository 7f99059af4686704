//! Exponential backoff with jitter between attempts.

use std::time::Duration;

/// Pause after the first failure; each further failure doubles it.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause without RetryInfo. With jitter, a service that is back is called within 3 s.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Longest pause that a service can demand by RetryInfo. It may demand another one afterwards.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);

/// Pauses that double, with jitter.
///
/// Without jitter, callers that failed at the same time would retry at the same time.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Starts at the shortest pause.
    pub(crate) fn new() -> Self {
        Self { next: PAUSE_MIN }
    }

    /// Returns the pause before the next attempt: the next of the doubling pauses, or `retry_after`
    /// (at most a minute) if that is longer; plus up to 50 % jitter.
    pub(crate) fn pause(&mut self, retry_after: Option<Duration>) -> Duration {
        let pause = self.next.max(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX));
        self.next = (self.next * 2).min(PAUSE_MAX);
        pause.mul_f64(rand::random_range(1.0..1.5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit() {
        let mut backoff = Backoff::new();

        for millis in [50, 100, 200, 400, 800, 1600, 2000, 2000] {
            let pause = backoff.pause(None);
            assert!((millis..millis * 3 / 2 + 1).contains(&pause.as_millis()), "{millis}: {pause:?}");
        }
    }

    #[test]
    fn retry_after_extends_the_pause_within_limits() {
        let pause = |retry_after| Backoff::new().pause(Some(retry_after)).as_millis();

        assert!((10_000..15_001).contains(&pause(Duration::from_secs(10))));
        assert!(pause(Duration::from_hours(1)) <= 90_000, "RetryInfo is capped at a minute");
        assert!(pause(Duration::ZERO) >= 50, "RetryInfo cannot shorten the pause");
    }
}
