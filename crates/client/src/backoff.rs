//! The pauses between failures.

use std::time::Duration;

/// The pause after the first failure; each further one doubles it, ...
const FIRST: Duration = Duration::from_millis(50);
/// ... up to this: a service that comes back is found within three seconds.
const LONGEST: Duration = Duration::from_secs(2);

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

    /// The pause after one more failure: what the service `asked` for, else twice the last one; up to half as long again.
    pub(crate) fn pause(&mut self, asked: Option<Duration>) -> Duration {
        let pause = asked.unwrap_or(self.next);
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
    fn the_service_says_how_long_to_wait() {
        let pause = Backoff::new().pause(Some(Duration::from_secs(10)));

        assert!((10_000..15_001).contains(&pause.as_millis()), "{pause:?}");
    }
}
