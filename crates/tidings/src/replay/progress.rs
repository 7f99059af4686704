//! Reports how much of a phase of a replay is done.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::progress::{ProgressMode, ProgressSnapshot, retries_suffix};

const BAR: &str = "{prefix:>18} [{bar:32}] {human_pos}/{human_len} {per_sec}{msg}";

/// Counts the completed items of a phase.
#[derive(Debug, Default)]
pub(super) struct DoneCount(AtomicU64);

impl DoneCount {
    /// Adds completed items.
    pub(super) fn add(&self, items: usize) {
        self.0.fetch_add(items as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs `job` and meanwhile reports how many of `total` items are done, and the number of retries.
pub(super) async fn run_with_progress<T>(
    progress: ProgressMode,
    name: &'static str,
    total: usize,
    retries: impl Fn() -> u64,
    job: impl AsyncFnOnce(&DoneCount) -> T,
) -> T {
    let done = DoneCount::default();
    let bar = progress.bar(BAR, name, total as u64);
    let snapshot = |_| {
        let (position, message) = (done.get(), retries_suffix(retries()));
        ProgressSnapshot { position, line: format!("{name}: {position} of {total}{message}"), message }
    };
    progress.during(&bar, snapshot, job(&done)).await
}

#[cfg(test)]
mod tests {
    use indicatif::ProgressStyle;

    use super::*;

    #[test]
    fn the_template_of_the_bar_is_valid() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }
}
