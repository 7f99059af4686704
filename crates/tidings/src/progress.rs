//! Says how far the work is while it goes on: a bar on a terminal, a line now and then elsewhere, or nothing.

use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, interval_at};

use crate::out;

/// How often a bar moves.
const BAR_EVERY: Duration = Duration::from_millis(100);
/// How often a line is written where nobody watches.
pub(crate) const LINE_EVERY: Duration = Duration::from_secs(3);

/// How progress is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// As a bar that moves.
    Bar,
    /// As lines.
    Lines,
    /// Not at all.
    Quiet,
}

/// How far the work is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// How much of the length of the bar is done.
    pub(crate) position: u64,
    /// What the bar says besides.
    pub(crate) message: String,
    /// The same as a line.
    pub(crate) line: String,
}

impl Progress {
    /// What suits standard error.
    pub(crate) fn new(quiet: bool) -> Self {
        match (quiet, io::stderr().is_terminal()) {
            (true, _) => Self::Quiet,
            (false, true) => Self::Bar,
            (false, false) => Self::Lines,
        }
    }

    /// A bar of this length, which is seen only on a terminal.
    pub(crate) fn bar(self, template: &str, name: &'static str, length: u64) -> ProgressBar {
        if self != Self::Bar {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(length).with_style(style).with_prefix(name)
    }

    /// Waits for the end of `job`, and tells meanwhile where `look` sees it. It is told also when nothing moves, since that is
    /// when people want to know.
    pub(crate) async fn during<T>(
        self,
        bar: &ProgressBar,
        mut look: impl FnMut(Instant) -> Place,
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
                    let place = look(now);
                    if self == Self::Lines {
                        out::note(&place.line);
                    }
                    bar.set_position(place.position);
                    bar.set_message(place.message);
                }
            }
        };
        bar.finish_and_clear();
        outcome
    }
}

/// What there is to say of calls that had to be repeated.
pub(crate) fn repeated(repeats: u64) -> String {
    if repeats == 0 { String::new() } else { format!(" ({repeats} repeated)") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_is_done_whoever_watches_and_is_looked_at_only_for_those_who_do() {
        for (progress, expected) in [(Progress::Quiet, 0), (Progress::Lines, 2)] {
            let mut looks = 0;
            let look = |_| {
                looks += 1;
                Place { position: 1, message: String::new(), line: "test: 1 of 2".to_owned() }
            };
            let bar = progress.bar("{msg}", "test", 2);

            let outcome = progress.during(&bar, look, async {
                tokio::time::sleep(2 * LINE_EVERY + BAR_EVERY).await;
                7
            });

            assert_eq!(outcome.await, 7);
            assert_eq!(looks, expected);
        }
    }
}
