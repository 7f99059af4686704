//! Reports progress while a job runs: a bar on a terminal, a line every few seconds elsewhere, or
//! nothing.

use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, interval_at};

use crate::out;

/// Interval between two updates of a bar.
const BAR_EVERY: Duration = Duration::from_millis(100);
/// Interval between two lines, where standard error is no terminal.
pub(crate) const LINE_EVERY: Duration = Duration::from_secs(3);

/// Form in which progress is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProgressMode {
    /// A progress bar.
    Bar,
    /// One line every [`LINE_EVERY`].
    Lines,
    /// No progress reports.
    Quiet,
}

/// State of a job at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProgressSnapshot {
    /// Completed part of the bar's length.
    pub(crate) position: u64,
    /// Text beside the bar.
    pub(crate) message: String,
    /// The same state as a line of text.
    pub(crate) line: String,
}

impl ProgressMode {
    /// Chooses the mode: `Quiet` on request, else by the kind of standard error.
    pub(crate) fn new(quiet: bool) -> Self {
        match (quiet, io::stderr().is_terminal()) {
            (true, _) => Self::Quiet,
            (false, true) => Self::Bar,
            (false, false) => Self::Lines,
        }
    }

    /// Creates a bar of this length. The bar is hidden unless the mode is `Bar`.
    pub(crate) fn bar(self, template: &str, name: &'static str, length: u64) -> ProgressBar {
        if self != Self::Bar {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(length).with_style(style).with_prefix(name)
    }

    /// Runs `job` to completion and meanwhile reports the state that `snapshot` returns. Reports
    /// continue while the state does not change, because a stall is of interest too.
    pub(crate) async fn during<T>(
        self,
        bar: &ProgressBar,
        mut snapshot: impl FnMut(Instant) -> ProgressSnapshot,
        job: impl Future<Output = T>,
    ) -> T {
        let mut job = pin!(job);
        let every = match self {
            Self::Bar => BAR_EVERY,
            Self::Lines => LINE_EVERY,
            Self::Quiet => return job.await,
        };
        let mut ticks = interval_at(Instant::now() + every, every);
        let outcome = loop {
            tokio::select! {
                outcome = &mut job => break outcome,
                now = ticks.tick() => {
                    let ProgressSnapshot { position, message, line } = snapshot(now);
                    if self == Self::Lines {
                        out::note(line);
                    }
                    bar.set_position(position);
                    bar.set_message(message);
                }
            }
        };
        bar.finish_and_clear();
        outcome
    }
}

/// Returns the number of retries as a suffix of a progress message; empty if there were none.
pub(crate) fn retries_suffix(retries: u64) -> String {
    if retries == 0 { String::new() } else { format!(" (retries: {retries})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The job completes in every mode; its state is read only where it is reported.
    #[tokio::test(start_paused = true)]
    async fn a_job_completes_and_its_state_is_read_only_for_reports() {
        for (progress, expected) in [(ProgressMode::Quiet, 0), (ProgressMode::Lines, 2)] {
            let mut snapshots = 0;
            let snapshot = |_| {
                snapshots += 1;
                ProgressSnapshot { position: 1, message: String::new(), line: "test: 1 of 2".to_owned() }
            };
            let bar = progress.bar("{msg}", "test", 2);

            let outcome = progress.during(&bar, snapshot, async {
                tokio::time::sleep(2 * LINE_EVERY + BAR_EVERY).await;
                7
            });

            assert_eq!(outcome.await, 7);
            assert_eq!(snapshots, expected);
        }
    }
}
