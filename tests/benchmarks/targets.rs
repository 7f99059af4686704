//! The performance targets of Tidings, set before it was built, beside the measured figures.

use std::fmt::Write as _;
use std::time::Duration;

use tidings_load::RunTally;

use crate::comparison::ComparisonResult;
use crate::comparisons::{BATCHES, EMPTY, TIDINGS, UPDATE_VISIBLE, USERS, WITHOUT_LOCAL_CACHE};
use crate::round::{Round, median, ratio};

/// Users per call of the batch comparison.
const BATCH: f64 = 100.0;

/// A target and the figure measured for it.
struct PerformanceTarget {
    name: String,
    target: String,
    measured: String,
    met: bool,
}

/// Returns the section of the document with all targets.
pub(crate) fn section(results: &[ComparisonResult], update_visible: &RunTally) -> String {
    let mut text = "\n## Targets\n\n| | target | measured | |\n|---|---|---|---|\n".to_owned();
    for PerformanceTarget { name, target, measured, met } in targets(results, update_visible) {
        let _ = writeln!(text, "| {name} | {target} | {measured} | {} |", if met { "met" } else { "**missed**" });
    }
    text
}

fn targets(results: &[ComparisonResult], update_visible: &RunTally) -> Vec<PerformanceTarget> {
    let rounds = |title, name| rounds(results, title, name);
    let share_of_empty_call = |name, least: f64| {
        let measured = ratio(rounds(USERS, name), rounds(USERS, EMPTY));
        PerformanceTarget {
            name: format!("{USERS}: {name}"),
            target: format!("at least {least} of an empty call"),
            measured: format!("{measured:.2}"),
            met: measured >= least,
        }
    };
    let users_per_second =
        median(rounds(BATCHES, WITHOUT_LOCAL_CACHE).iter().map(|round| round.rate * BATCH).collect());
    let p99 = update_visible.latency.percentile(99.0);
    vec![
        share_of_empty_call(TIDINGS, 0.85),
        share_of_empty_call(WITHOUT_LOCAL_CACHE, 0.6),
        PerformanceTarget {
            name: format!("{BATCHES}: {WITHOUT_LOCAL_CACHE}"),
            target: "at least 250,000 users per second".to_owned(),
            measured: format!("{users_per_second:.0}"),
            met: users_per_second >= 250_000.0,
        },
        PerformanceTarget {
            name: UPDATE_VISIBLE.to_owned(),
            target: "p99 at most 50 ms".to_owned(),
            measured: format!("{:.1} ms", p99.as_secs_f64() * 1000.0),
            met: p99 <= Duration::from_millis(50) && update_visible.failed() == 0,
        },
    ]
}

/// Returns the rounds of one candidate in one comparison.
fn rounds<'a>(results: &'a [ComparisonResult], title: &str, name: &str) -> &'a [Round] {
    let result = results.iter().find(|result| result.title == title).unwrap();
    let (_, _, rounds) = result.rounds.iter().find(|(candidate, _, _)| *candidate == name).unwrap();
    rounds
}
