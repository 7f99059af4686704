//! Keeps the log readable when everything fails: of one kind, only so many lines a second.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::counter;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Lines of one kind, that is, from one place in the code, in a second. Who reads them has seen enough, and whoever counts them
/// has metrics.
const LINES_MAX: u32 = 100;
const SECOND: Duration = Duration::from_secs(1);

/// Leaves out what is too much, and counts it in `tidings_log_lines_left_out_total`. Lines below `info` are there because
/// somebody wants all of them.
#[derive(Debug, Default)]
pub(super) struct Brake {
    kinds: Mutex<HashMap<Identifier, Kind>>,
}

/// The lines of one kind within a second.
#[derive(Debug)]
struct Kind {
    begun: Instant,
    lines: u32,
}

impl Brake {
    /// Whether one more line of this kind is written.
    fn lets(&self, kind: Identifier, now: Instant) -> bool {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = kinds.entry(kind).or_insert(Kind { begun: now, lines: 0 });
        if now.duration_since(kind.begun) >= SECOND {
            *kind = Kind { begun: now, lines: 0 };
        }
        kind.lines += 1;
        kind.lines <= LINES_MAX
    }
}

impl<S: Subscriber> Layer<S> for Brake {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let about = event.metadata();
        let written = *about.level() > Level::INFO || self.lets(about.callsite(), Instant::now());
        if !written {
            counter!("tidings_log_lines_left_out_total").increment(1);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tracing::subscriber::with_default;
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::registry;

    use super::*;

    /// Counts what is written.
    #[derive(Clone, Default)]
    struct Count(Arc<AtomicU32>);

    impl<S: Subscriber> Layer<S> for Count {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn of_one_kind_only_so_many_lines_are_written_in_a_second_and_of_others_theirs() {
        let count = Count::default();
        let begun = Instant::now();
        with_default(registry().with(count.clone()).with(Brake::default()), || {
            for _ in 0..1000 {
                tracing::warn!("everything fails");
            }
            tracing::warn!("something else");
            for _ in 0..1000 {
                tracing::debug!("everything");
            }
        });

        let seconds = u32::try_from(begun.elapsed().as_secs()).unwrap() + 1; // on a machine that stands still meanwhile
        let written = count.0.load(Ordering::Relaxed) - 1000 - 1;
        assert!((LINES_MAX..=LINES_MAX * seconds).contains(&written), "{written}");
    }

    #[test]
    fn after_a_second_there_are_lines_again() {
        let (brake, now) = (Brake::default(), Instant::now());
        let kind = Identifier(tracing::callsite!(name: "here", kind: tracing::metadata::Kind::EVENT, fields: message));
        let mut written = 0;
        for _ in 0..1000 {
            written += u32::from(brake.lets(kind.clone(), now));
        }
        assert_eq!(written, LINES_MAX);
        assert!(brake.lets(kind, now + SECOND));
    }
}
