//! Says how much of a stretch of a replay is done.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::progress::{Place, Progress, repeated};

const BAR: &str = "{prefix:>18} [{bar:32}] {human_pos}/{human_len} {per_sec}{msg}";

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

/// Does `job`, and tells meanwhile how much of `total` is done and how often calls were repeated.
pub(super) async fn during<T>(
    progress: Progress,
    name: &'static str,
    total: usize,
    repeats: impl Fn() -> u64,
    job: impl AsyncFnOnce(&Done) -> T,
) -> T {
    let done = Done::default();
    let bar = progress.bar(BAR, name, total as u64);
    let look = |_| {
        let (position, message) = (done.get(), repeated(repeats()));
        Place { position, line: format!("{name}: {position} of {total}{message}"), message }
    };
    progress.during(&bar, look, job(&done)).await
}

#[cfg(test)]
mod tests {
    use indicatif::ProgressStyle;

    use super::*;

    #[test]
    fn the_bar_can_be_drawn() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }
}
