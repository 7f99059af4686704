//! Tells people how a run goes.

use std::time::Duration;

use indicatif::ProgressBar;
use tokio::time::Instant;

use crate::load::Seen;
use crate::out;
use crate::progress::{self, Place};

const BAR: &str = "{prefix:>21} [{bar:32}] {msg}";

/// How progress is told, of one scenario.
pub(super) struct Progress {
    name: &'static str,
    how: progress::Progress,
    bar: ProgressBar,
}

impl Progress {
    /// As suits standard error.
    pub(super) fn new(quiet: bool, name: &'static str) -> Self {
        let how = progress::Progress::new(quiet);
        Self { name, how, bar: how.bar(BAR, name, 1) }
    }

    /// What the calls need is being made.
    pub(super) fn preparing(&self) {
        self.bar.set_message("getting ready ...");
        if self.how == progress::Progress::Lines {
            out::note(format_args!("{}: getting ready ...", self.name));
        }
    }

    /// Waits for the end of a run of this length, and tells meanwhile how it goes.
    pub(super) async fn during<T>(self, time: Duration, seen: &Seen, run: impl Future<Output = T>) -> T {
        let begin = Instant::now();
        let mut before = (begin, 0);
        self.bar.set_length(millis(time));
        let look = |now: Instant| {
            let answered = seen.answered();
            let rate = per_second(answered - before.1, now - before.0);
            before = (now, answered);
            let message = match seen.failed() {
                0 => format!("{rate}/s"),
                failed => format!("{rate}/s, {failed} failed"),
            };
            Place { position: millis(now - begin), line: format!("{}: {message}", self.name), message }
        };
        self.how.during(&self.bar, look, run).await
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
    async fn a_run_ends_whoever_watches() {
        for quiet in [true, false] {
            let time = 2 * progress::LINE_EVERY;
            let run = async {
                tokio::time::sleep(time).await;
                7
            };
            assert_eq!(Progress::new(quiet, "test").during(time, &Seen::default(), run).await, 7);
        }
    }
}
