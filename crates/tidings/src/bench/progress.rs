//! The progress of a scenario on standard error.

use std::time::Duration;

use indicatif::ProgressBar;
use tidings_load::LiveCounts;
use tokio::time::Instant;

use crate::out;
use crate::progress::{self, ProgressSnapshot};

const BAR: &str = "{prefix:>21} [{bar:32}] {msg}";

/// Reports the progress of one scenario.
pub(super) struct ScenarioProgress {
    name: &'static str,
    style: progress::ProgressMode,
    bar: ProgressBar,
}

impl ScenarioProgress {
    /// Creates a reporter in the style that suits standard error.
    pub(super) fn new(quiet: bool, name: &'static str) -> Self {
        let style = progress::ProgressMode::new(quiet);
        Self { name, style, bar: style.bar(BAR, name, 1) }
    }

    /// Reports that the scenario is being prepared.
    pub(super) fn preparing(&self) {
        self.bar.set_message("preparing ...");
        if self.style == progress::ProgressMode::Lines {
            out::note(format_args!("{}: preparing ...", self.name));
        }
    }

    /// Waits for the end of a run of duration `time`, and reports rate and failures meanwhile.
    pub(super) async fn during<T>(self, time: Duration, counts: &LiveCounts, run: impl Future<Output = T>) -> T {
        let begin = Instant::now();
        let mut last = (begin, 0);
        self.bar.set_length(millis(time));
        let snapshot = |now: Instant| {
            let succeeded = counts.succeeded();
            let rate = per_second(succeeded - last.1, now - last.0);
            last = (now, succeeded);
            let message = match counts.failed() {
                0 => format!("{rate}/s"),
                failed => format!("{rate}/s, {failed} failed"),
            };
            ProgressSnapshot { position: millis(now - begin), line: format!("{}: {message}", self.name), message }
        };
        self.style.during(&self.bar, snapshot, run).await
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn per_second(count: u64, time: Duration) -> u64 {
    count * 1000 / millis(time).max(1)
}

#[cfg(test)]
mod tests {
    use indicatif::ProgressStyle;

    use super::*;

    #[test]
    fn the_bar_can_be_drawn() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_ends_with_and_without_progress() {
        for quiet in [true, false] {
            let time = 2 * progress::LINE_EVERY;
            let run = async {
                tokio::time::sleep(time).await;
                7
            };
            assert_eq!(ScenarioProgress::new(quiet, "test").during(time, &LiveCounts::default(), run).await, 7);
        }
    }
}
