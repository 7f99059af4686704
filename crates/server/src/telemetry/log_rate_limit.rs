//! Rate limit of the log: keeps it readable during an outage.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use metrics::counter;
use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Maximum number of lines per second from one place in the code. More lines help no reader;
/// metrics give the counts.
const LINES_MAX: u32 = 100;
const SECOND: Duration = Duration::from_secs(1);

/// Drops lines above the rate limit and counts them in `tidings_log_lines_dropped_total`. Levels
/// below `info` are not limited: an operator who enables them wants all lines.
#[derive(Debug, Default)]
pub(super) struct LogRateLimit {
    callsites: Mutex<HashMap<Identifier, CallsiteWindow>>,
}

/// The lines of one call site within the current second.
#[derive(Debug)]
struct CallsiteWindow {
    window_start: Instant,
    lines: u32,
}

impl LogRateLimit {
    /// Returns whether another line of this call site is written.
    fn admit(&self, callsite: Identifier, now: Instant) -> bool {
        let mut callsites = self.callsites.lock();
        let window = callsites.entry(callsite).or_insert(CallsiteWindow { window_start: now, lines: 0 });
        if now.duration_since(window.window_start) >= SECOND {
            *window = CallsiteWindow { window_start: now, lines: 0 };
        }
        window.lines += 1;
        window.lines <= LINES_MAX
    }
}

impl<S: Subscriber> Layer<S> for LogRateLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let written = *metadata.level() > Level::INFO || self.admit(metadata.callsite(), Instant::now());
        if !written {
            counter!("tidings_log_lines_dropped_total", "cause" => "rate_limit").increment(1);
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

    /// A layer that counts the lines written.
    #[derive(Clone, Default)]
    struct LineCounter(Arc<AtomicU32>);

    impl<S: Subscriber> Layer<S> for LineCounter {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn each_call_site_writes_at_most_100_lines_a_second() {
        let count = LineCounter::default();
        let start = Instant::now();
        with_default(registry().with(count.clone()).with(LogRateLimit::default()), || {
            for _ in 0..1000 {
                tracing::warn!("every call fails");
            }
            tracing::warn!("something else");
            for _ in 0..1000 {
                tracing::debug!("everything");
            }
        });

        let seconds = u32::try_from(start.elapsed().as_secs()).unwrap() + 1; // the machine may stall meanwhile
        let written = count.0.load(Ordering::Relaxed) - 1000 - 1;
        assert!((LINES_MAX..=LINES_MAX * seconds).contains(&written), "{written}");
    }

    #[test]
    fn a_call_site_writes_again_after_a_second() {
        let (limit, now) = (LogRateLimit::default(), Instant::now());
        let callsite =
            Identifier(tracing::callsite!(name: "here", kind: tracing::metadata::Kind::EVENT, fields: message));
        let mut written = 0;
        for _ in 0..1000 {
            written += u32::from(limit.admit(callsite.clone(), now));
        }
        assert_eq!(written, LINES_MAX);
        assert!(limit.admit(callsite, now + SECOND));
    }
}
