//! What is asked of a run.

use std::fmt;
use std::time::Duration;

use crate::cli;
use crate::load::Tally;

/// What a run has to reach; nothing is asked unless something is stated.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Bar")]
pub(super) struct Bar {
    /// Half of the calls take at most so long
    #[arg(long, value_name = "DURATION", value_parser = cli::duration)]
    p50: Option<Duration>,

    /// 99 of 100 calls take at most so long
    #[arg(long, value_name = "DURATION", value_parser = cli::duration)]
    p99: Option<Duration>,

    /// 999 of 1000 calls take at most so long
    #[arg(long = "p99.9", value_name = "DURATION", value_parser = cli::duration)]
    p999: Option<Duration>,

    /// Every call takes at most so long
    #[arg(long, value_name = "DURATION", value_parser = cli::duration)]
    max: Option<Duration>,

    /// At least so many good answers a second
    #[arg(long, value_name = "N")]
    min_rate: Option<f64>,

    /// At most so many of a hundred calls fail [default: 0, if anything else is asked]
    #[arg(long, value_name = "PERCENT")]
    max_errors: Option<f64>,
}

/// Whether one thing that was asked is so.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    /// What was asked, e.g. `p99`.
    pub(super) what: &'static str,
    /// What it was, and what it should be, with their unit.
    pub(super) said: String,
    pub(super) passed: bool,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.said)
    }
}

impl Bar {
    /// Judges a run; says nothing if nothing was asked.
    pub(super) fn judge(&self, tally: &Tally) -> Vec<Verdict> {
        let latency = &tally.latency;
        let mut verdicts = Vec::new();
        let times = [
            ("p50", self.p50, latency.percentile(50.0)),
            ("p99", self.p99, latency.percentile(99.0)),
            ("p99.9", self.p999, latency.percentile(99.9)),
            ("max", self.max, latency.max()),
        ];
        for (what, bar, is) in times {
            let Some(bar) = bar else { continue };
            // Of no calls nothing can be said, least of all that they were fast.
            let passed = is <= bar && latency.count() > 0;
            let said = format!("{}, asked for at most {}", time(is), time(bar));
            verdicts.push(Verdict { what, said, passed });
        }
        if let Some(bar) = self.min_rate {
            let rate = tally.rate();
            let said = format!("{rate:.0}/s, asked for at least {bar}/s");
            verdicts.push(Verdict { what: "rate", said, passed: rate >= bar });
        }
        if self.max_errors.is_some() || !verdicts.is_empty() {
            let (bar, is) = (self.max_errors.unwrap_or(0.0), errors(tally));
            let said = format!("{is:.3} %, asked for at most {bar} %");
            verdicts.push(Verdict { what: "errors", said, passed: is <= bar });
        }
        verdicts
    }
}

/// A length of time, as it was measured: to the microsecond.
fn time(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

/// How many of a hundred calls failed.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn errors(tally: &Tally) -> f64 {
    100.0 * tally.failed() as f64 / tally.calls().max(1) as f64
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::load::Fault;

    const MILLI: Duration = Duration::from_millis(1);

    /// A second with 98 calls of 1 ms, one of 5 ms and one of 50 ms, and further ones that were refused.
    fn tally(refused: u32) -> Tally {
        let mut tally = Tally::new(Duration::from_secs(1));
        let mut call = |time: Duration, answer: &Result<u64, Fault>| {
            let begin = Instant::now();
            tally.call(begin, begin, begin + time, answer);
            tally.arrival(answer);
        };
        for _ in 0..98 {
            call(MILLI, &Ok(1));
        }
        call(5 * MILLI, &Ok(1));
        call(50 * MILLI, &Ok(1));
        for _ in 0..refused {
            call(MILLI, &Err(Fault::answer("HELD")));
        }
        tally
    }

    fn passed(bar: &Bar, tally: &Tally) -> Vec<(&'static str, bool)> {
        bar.judge(tally).iter().map(|verdict| (verdict.what, verdict.passed)).collect()
    }

    #[test]
    fn nothing_is_judged_unless_something_is_asked() {
        assert_eq!(Bar::default().judge(&tally(1)), []);
    }

    #[test]
    fn each_thing_that_is_asked_is_judged_by_itself() {
        let bar = Bar { p50: Some(2 * MILLI), p99: Some(4 * MILLI), max: Some(51 * MILLI), ..Bar::default() };
        assert_eq!(passed(&bar, &tally(0)), [("p50", true), ("p99", false), ("max", true), ("errors", true)]);

        let bar = Bar { min_rate: Some(101.0), ..Bar::default() };
        assert_eq!(passed(&bar, &tally(0)), [("rate", false), ("errors", true)]);
        assert_eq!(bar.judge(&tally(0))[0].to_string(), "rate 100/s, asked for at least 101/s");
    }

    #[test]
    fn a_call_that_fails_is_a_fail_unless_it_was_allowed_for() {
        let strict = Bar { p99: Some(6 * MILLI), ..Bar::default() };
        let lenient = Bar { max_errors: Some(10.0), ..strict.clone() };

        assert_eq!(passed(&strict, &tally(1)), [("p99", true), ("errors", false)]);
        assert_eq!(passed(&lenient, &tally(11)), [("p99", true), ("errors", true)]);
        assert_eq!(passed(&lenient, &tally(12)), [("p99", true), ("errors", false)]);
    }

    #[test]
    fn no_calls_are_not_fast() {
        let bar = Bar { p99: Some(MILLI), ..Bar::default() };

        assert_eq!(passed(&bar, &Tally::new(Duration::from_secs(1)))[0], ("p99", false));
    }
}
