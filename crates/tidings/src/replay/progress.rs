//! Says how far the work is while it goes on: a bar on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{self, Instant};

use crate::out;

/// How often a bar moves.
const BAR_EVERY: Duration = Duration::from_millis(100);
/// How often a line is written where nobody watches.
const LINE_EVERY: Duration = Duration::from_secs(3);
const BAR: &str = "{prefix:>18} [{bar:32}] {human_pos}/{human_len} {per_sec}{msg}";

/// How progress is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// As a bar that moves.
    Bar,
    /// As lines.
    Lines,
    /// Not at all.
    Quiet,
}

/// How much of a stretch of work is done.
#[derive(Debug, Default)]
pub(super) struct Done(AtomicU64);

impl Done {
    /// Counts `more` as done.
    pub(super) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Progress {
    /// What suits standard error.
    pub(super) fn new(quiet: bool) -> Self {
        match (quiet, io::stderr().is_terminal()) {
            (true, _) => Self::Quiet,
            (false, true) => Self::Bar,
            (false, false) => Self::Lines,
        }
    }

    /// Does `job`, and tells meanwhile how much of `total` is done and how often calls were repeated. It is told also
    /// when nothing moves, since that is when people want to know.
    pub(super) async fn during<T>(
        self,
        name: &'static str,
        total: usize,
        repeats: impl Fn() -> u64,
        job: impl AsyncFnOnce(&Done) -> T,
    ) -> T {
        let done = Done::default();
        let mut job = pin!(job(&done));
        let every = match self {
            Self::Bar => BAR_EVERY,
            Self::Lines => LINE_EVERY,
            Self::Quiet => return job.await,
        };
        let bar = if self == Self::Bar { bar(name, total) } else { ProgressBar::hidden() };
        let mut ticks = time::interval_at(Instant::now() + every, every);
        let outcome = loop {
            tokio::select! {
                outcome = &mut job => break outcome,
                _ = ticks.tick() => {
                    bar.set_position(done.get());
                    bar.set_message(repeated(repeats()));
                    if self == Self::Lines {
                        out::note(format_args!("{name}: {} of {total}{}", done.get(), repeated(repeats())));
                    }
                }
            }
        };
        bar.finish_and_clear();
        outcome
    }
}

fn bar(name: &'static str, total: usize) -> ProgressBar {
    let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total as u64).with_style(style).with_prefix(name)
}

fn repeated(repeats: u64) -> String {
    if repeats == 0 { String::new() } else { format!(" ({repeats} repeated)") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_can_be_drawn() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_done_whoever_watches() {
        for progress in [Progress::Quiet, Progress::Lines] {
            let outcome = progress.during(
                "test",
                2,
                || 1,
                async |done| {
                    done.add(2);
                    time::sleep(2 * LINE_EVERY).await;
                    done.get()
                },
            );
            assert_eq!(outcome.await, 2);
        }
    }
}
