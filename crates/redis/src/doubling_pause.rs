//! Pauses between attempts to reach Redis: each is twice as long as the one before.

use std::time::Duration;

use tokio::time::sleep;

/// First pause after a failed connection attempt.
const RECONNECT_MIN: Duration = Duration::from_millis(20);
/// Longest pause between connection attempts: bounds the time until a recovered Redis is used
/// again. One attempt in this time is no load for it.
const RECONNECT_MAX: Duration = Duration::from_millis(200);

/// A pause that doubles with each use, up to a maximum.
#[derive(Debug)]
pub(crate) struct DoublingPause {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl DoublingPause {
    /// Starts at `min`.
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// Starts the pauses of a task that keeps a connection open.
    pub(crate) fn reconnect() -> Self {
        Self::new(RECONNECT_MIN, RECONNECT_MAX)
    }

    /// Returns the next pause, and doubles the one after it.
    pub(crate) fn take(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        pause
    }

    /// Waits for the next pause.
    pub(crate) async fn wait(&mut self) {
        sleep(self.take()).await;
    }

    /// Starts at the minimum again, after a success.
    pub(crate) fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum_and_start_again() {
        let mut pause = DoublingPause::reconnect();
        let mut millis = || pause.take().as_millis();

        assert_eq!([millis(), millis(), millis(), millis(), millis(), millis()], [20, 40, 80, 160, 200, 200]);
        pause.reset();
        assert_eq!(pause.take(), RECONNECT_MIN);
    }
}
