//! Thresholds for the results of a run.

use std::fmt;
use std::time::Duration;

use tidings_load::RunTally;

use crate::args;

/// The limits that the results of a run must meet; none by default.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Thresholds")]
pub(super) struct Thresholds {
    /// Highest allowed median latency
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    p50: Option<Duration>,

    /// Highest allowed p99 latency
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    p99: Option<Duration>,

    /// Highest allowed p99.9 latency
    #[arg(long = "p99.9", value_name = "DURATION", value_parser = args::duration)]
    p999: Option<Duration>,

    /// Highest allowed latency of any call
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    max: Option<Duration>,

    /// Lowest allowed number of successful calls per second
    #[arg(long, value_name = "N")]
    min_rate: Option<f64>,

    /// Highest allowed share of failed calls, in percent [default: 0 if another threshold is given]
    #[arg(long, value_name = "PERCENT")]
    max_errors: Option<f64>,
}

/// The result of checking one threshold.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ThresholdVerdict {
    /// The threshold's name, e.g. `p99`.
    pub(super) threshold: &'static str,
    /// The measured value and the limit, with their unit.
    pub(super) detail: String,
    pub(super) passed: bool,
}

impl fmt::Display for ThresholdVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.threshold, self.detail)
    }
}

impl Thresholds {
    /// Checks the results of a run; empty if there are no thresholds.
    pub(super) fn judge(&self, tally: &RunTally) -> Vec<ThresholdVerdict> {
        let latency = &tally.latency;
        let mut verdicts = Vec::new();
        let times = [
            ("p50", self.p50, latency.percentile(50.0)),
            ("p99", self.p99, latency.percentile(99.0)),
            ("p99.9", self.p999, latency.percentile(99.9)),
            ("max", self.max, latency.max()),
        ];
        for (threshold, limit, is) in times {
            let Some(limit) = limit else { continue };
            // Without any call no latency threshold is met.
            let passed = is <= limit && latency.count() > 0;
            let detail = format!("{} (at most {})", time(is), time(limit));
            verdicts.push(ThresholdVerdict { threshold, detail, passed });
        }
        if let Some(limit) = self.min_rate {
            let rate = tally.rate();
            let detail = format!("{rate:.0}/s (at least {limit}/s)");
            verdicts.push(ThresholdVerdict { threshold: "rate", detail, passed: rate >= limit });
        }
        if self.max_errors.is_some() || !verdicts.is_empty() {
            let (limit, is) = (self.max_errors.unwrap_or(0.0), errors(tally));
            let detail = format!("{is:.3} % (at most {limit} %)");
            verdicts.push(ThresholdVerdict { threshold: "errors", detail, passed: is <= limit });
        }
        verdicts
    }
}

/// Renders a duration with the precision of the measurement, microseconds.
fn time(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

/// Returns the percentage of failed calls.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn errors(tally: &RunTally) -> f64 {
    100.0 * tally.failed() as f64 / tally.calls().max(1) as f64
}

#[cfg(test)]
mod tests {
    use tidings_load::CallFailure;
    use tokio::time::Instant;

    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    /// Returns the tally of a second with 98 calls of 1 ms, one of 5 ms, one of 50 ms, and
    /// `refused` failed ones.
    fn tally(refused: u32) -> RunTally {
        let mut tally = RunTally::new(Duration::from_secs(1));
        let mut call = |time: Duration, outcome: &Result<u64, CallFailure>| {
            let begin = Instant::now();
            tally.record_call(begin, begin, begin + time, outcome);
            tally.record_response(outcome);
        };
        for _ in 0..98 {
            call(MILLI, &Ok(1));
        }
        call(5 * MILLI, &Ok(1));
        call(50 * MILLI, &Ok(1));
        for _ in 0..refused {
            call(MILLI, &Err(CallFailure::unexpected("HELD")));
        }
        tally
    }

    fn passed(thresholds: &Thresholds, tally: &RunTally) -> Vec<(&'static str, bool)> {
        thresholds.judge(tally).iter().map(|verdict| (verdict.threshold, verdict.passed)).collect()
    }

    #[test]
    fn nothing_is_judged_without_thresholds() {
        assert_eq!(Thresholds::default().judge(&tally(1)), []);
    }

    #[test]
    fn each_threshold_is_judged_by_itself() {
        let thresholds =
            Thresholds { p50: Some(2 * MILLI), p99: Some(4 * MILLI), max: Some(51 * MILLI), ..Thresholds::default() };
        assert_eq!(passed(&thresholds, &tally(0)), [("p50", true), ("p99", false), ("max", true), ("errors", true)]);

        let thresholds = Thresholds { min_rate: Some(101.0), ..Thresholds::default() };
        assert_eq!(passed(&thresholds, &tally(0)), [("rate", false), ("errors", true)]);
        assert_eq!(thresholds.judge(&tally(0))[0].to_string(), "rate 100/s (at least 101/s)");
    }

    #[test]
    fn a_failed_call_is_a_fail_unless_max_errors_allows_it() {
        let strict = Thresholds { p99: Some(6 * MILLI), ..Thresholds::default() };
        let lenient = Thresholds { max_errors: Some(10.0), ..strict.clone() };

        assert_eq!(passed(&strict, &tally(1)), [("p99", true), ("errors", false)]);
        assert_eq!(passed(&lenient, &tally(11)), [("p99", true), ("errors", true)]);
        assert_eq!(passed(&lenient, &tally(12)), [("p99", true), ("errors", false)]);
    }

    #[test]
    fn a_run_without_calls_meets_no_latency_threshold() {
        let thresholds = Thresholds { p99: Some(MILLI), ..Thresholds::default() };

        assert_eq!(passed(&thresholds, &RunTally::new(Duration::from_secs(1)))[0], ("p99", false));
    }
}
