//! What was stated of the speed of Tidings before it was built, and whether it holds here.

use std::fmt::Write as _;
use std::time::Duration;

use tidings::load::Tally;

use crate::contest::{Round, Standing, median, ratio};
use crate::contests::{BATCHES, EMPTY, FROM_REDIS, OURS, SEEN, USERS};

/// A hundred users are read with one call.
const BATCH: f64 = 100.0;

/// A stated bar.
struct Bar {
    what: String,
    stated: String,
    measured: String,
    held: bool,
}

/// The bars with what was measured, as a table.
pub(crate) fn table(standings: &[Standing], seen: &Tally) -> String {
    let mut text = "\n## Stated bars\n\n| | stated | measured | |\n|---|---|---|---|\n".to_owned();
    for Bar { what, stated, measured, held } in bars(standings, seen) {
        let _ =
            writeln!(text, "| {what} | {stated} | {measured} | {} |", if held { "holds" } else { "**falls short**" });
    }
    text
}

fn bars(standings: &[Standing], seen: &Tally) -> Vec<Bar> {
    let rounds = |title, name| rounds(standings, title, name);
    let share = |name, least: f64| {
        let measured = ratio(rounds(USERS, name), rounds(USERS, EMPTY));
        Bar {
            what: format!("{USERS}: {name}"),
            stated: format!("at least {least} of an empty call"),
            measured: format!("{measured:.2}"),
            held: measured >= least,
        }
    };
    let profiles = median(rounds(BATCHES, FROM_REDIS).iter().map(|round| round.rate * BATCH).collect());
    let late = seen.latency.percentile(99.0);
    vec![
        share(OURS, 0.85),
        share(FROM_REDIS, 0.6),
        Bar {
            what: format!("{BATCHES}: {FROM_REDIS}"),
            stated: "at least 250,000 users a second".to_owned(),
            measured: format!("{profiles:.0}"),
            held: profiles >= 250_000.0,
        },
        Bar {
            what: SEEN.to_owned(),
            stated: "at most 50 ms in 99 of 100".to_owned(),
            measured: format!("{:.1} ms", late.as_secs_f64() * 1000.0),
            held: late <= Duration::from_millis(50) && seen.failed() == 0,
        },
    ]
}

/// The rounds of one contender.
fn rounds<'a>(standings: &'a [Standing], title: &str, name: &str) -> &'a [Round] {
    let standing = standings.iter().find(|standing| standing.title == title).unwrap();
    let (_, _, rounds) = standing.rounds.iter().find(|(contender, _, _)| *contender == name).unwrap();
    rounds
}
