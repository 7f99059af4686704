//! The pauses between restarts of a process that keeps exiting.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::out;

/// Delay before the first restart of a process; doubles while it keeps exiting.
const RESTART_DELAY_MIN: Duration = Duration::from_millis(500);
/// Maximum delay before a restart.
const RESTART_DELAY_MAX: Duration = Duration::from_secs(5);

/// Exponential backoff between restarts of one process.
#[derive(Debug)]
pub(super) struct RestartBackoff {
    delay: Duration,
    last: Option<Instant>,
}

impl Default for RestartBackoff {
    fn default() -> Self {
        Self { delay: RESTART_DELAY_MIN, last: None }
    }
}

impl RestartBackoff {
    /// Returns the next delay: twice the last one if the last restart was within 10 s.
    pub(super) fn next_delay(&mut self) -> Duration {
        let recent = self.last.is_some_and(|last| last.elapsed() < RESTART_DELAY_MAX * 2);
        self.delay = if recent { (self.delay * 2).min(RESTART_DELAY_MAX) } else { RESTART_DELAY_MIN };
        self.last = Some(Instant::now());
        self.delay
    }

    /// Reports that the server exited, and waits for the next delay.
    pub(super) async fn wait(&mut self, server: &str) {
        out::note(format_args!("{server} exited, restarting ..."));
        sleep(self.next_delay()).await;
    }
}
