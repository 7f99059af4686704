//! The pauses between failures.

use std::time::Duration;

/// The pause after the first failure; each further one doubles it, ...
const FIRST: Duration = Duration::from_millis(50);
/// ... up to this: a service that comes back is found within three seconds.
const LONGEST: Duration = Duration::from_secs(2);

/// The longest pause that a service can ask for: whoever wants callers to stay away for longer refuses them again.
const LONGEST_ASKED: Duration = Duration::from_mins(1);

/// Pauses that double, with jitter: callers that failed together must not come back together.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// The next pause is a short one.
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    /// The pause after one more failure: twice the last one, or longer if the service `asked` for it; and up to half of that
    /// on top.
    pub(crate) fn pause(&mut self, asked: Option<Duration>) -> Duration {
        let pause = self.next.max(asked.unwrap_or_default().min(LONGEST_ASKED));
        self.next = (self.next * 2).min(LONGEST);
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
    fn the_service_says_how_much_longer_to_wait() {
        let pause = |asked| Backoff::new().pause(Some(asked)).as_millis();

        assert!((10_000..15_001).contains(&pause(Duration::from_secs(10))));
        assert!(pause(Duration::from_hours(1)) <= 90_000, "it can not keep callers away for an hour");
        assert!(pause(Duration::ZERO) >= 50, "nor make them hurry");
    }
}
