//! Tells people how a run goes.

use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, interval_at};

use crate::load::Seen;
use crate::out;

/// How often the bar moves where somebody watches.
const BAR_EVERY: Duration = Duration::from_millis(100);
/// How often a line is written where nobody watches.
const LINE_EVERY: Duration = Duration::from_secs(3);
const BAR: &str = "{prefix:>21} [{bar:32}] {msg}";

/// How progress is told, of one scenario.
pub(super) struct Progress {
    name: &'static str,
    bar: ProgressBar,
    every: Option<Duration>,
    lines: bool,
}

impl Progress {
    /// As suits standard error.
    pub(super) fn new(quiet: bool, name: &'static str) -> Self {
        let watched = !quiet && io::stderr().is_terminal();
        let every = if watched { BAR_EVERY } else { LINE_EVERY };
        let bar = if watched { bar(name) } else { ProgressBar::hidden() };
        Self { name, bar, every: (!quiet).then_some(every), lines: !quiet && !watched }
    }

    /// What the calls need is being made.
    pub(super) fn preparing(&self) {
        self.bar.set_message("getting ready ...");
        if self.lines {
            out::note(format_args!("{}: getting ready ...", self.name));
        }
    }

    /// Waits for the end of a run of this length, and tells meanwhile how it goes.
    pub(super) async fn during<T>(self, time: Duration, seen: &Seen, run: impl Future<Output = T>) -> T {
        let mut run = pin!(run);
        let Some(every) = self.every else { return run.await };
        let begin = Instant::now();
        let mut ticks = interval_at(begin + every, every);
        self.bar.set_length(millis(time));
        let mut before = (begin, 0);
        let outcome = loop {
            tokio::select! {
                outcome = &mut run => break outcome,
                now = ticks.tick() => {
                    let answered = seen.answered();
                    let rate = per_second(answered - before.1, now - before.0);
                    before = (now, answered);
                    let said = match seen.failed() {
                        0 => format!("{rate}/s"),
                        failed => format!("{rate}/s, {failed} failed"),
                    };
                    self.bar.set_position(millis(now - begin));
                    if self.lines {
                        out::note(format_args!("{}: {said}", self.name));
                    }
                    self.bar.set_message(said);
                }
            }
        };
        self.bar.finish_and_clear();
        outcome
    }
}

fn bar(name: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(1).with_style(style).with_prefix(name)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn per_second(count: u64, time: Duration) -> u64 {
    count * 1000 / millis(time).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_can_be_drawn() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_ends_whoever_watches() {
        for quiet in [true, false] {
            let run = async {
                tokio::time::sleep(2 * LINE_EVERY).await;
                7
            };
            assert_eq!(Progress::new(quiet, "test").during(LINE_EVERY, &Seen::default(), run).await, 7);
        }
    }
}
