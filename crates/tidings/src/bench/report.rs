//! The results of scenarios, as a table or as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::CellAlignment;
use serde_json::{Value, json};
use tidings_load::{LoadSpec, Pace, RunTally, Scenario, WorkloadShape};

use super::thresholds::ThresholdVerdict;
use crate::display;

/// The percentiles in the results.
const PERCENTILES: [(&str, f64); 3] = [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9)];

/// The results of one scenario.
pub(super) struct ScenarioReport {
    pub(super) scenario: &'static Scenario,
    pub(super) load: LoadSpec,
    pub(super) connections: u16,
    pub(super) shape: WorkloadShape,
    pub(super) tally: RunTally,
    pub(super) verdicts: Vec<ThresholdVerdict>,
}

impl ScenarioReport {
    /// Returns true if all thresholds are met, `None` if there are none.
    pub(super) fn passed(&self) -> Option<bool> {
        (!self.verdicts.is_empty()).then(|| self.verdicts.iter().all(|verdict| verdict.passed))
    }

    /// Renders the load, e.g. `500/s` or `64 callers`.
    pub(super) fn pace(&self) -> String {
        match self.load.pace {
            Pace::Rate(rate) => format!("{rate}/s"),
            Pace::Closed => format!("{} callers", self.load.in_flight),
        }
    }

    fn row(&self) -> Vec<String> {
        let tally = &self.tally;
        let mut row = vec![
            self.scenario.name.to_owned(),
            self.pace(),
            format!("{:.0}", tally.rate()),
            format!("{:.0}", tally.items_rate()),
        ];
        row.extend(PERCENTILES.map(|(_, percent)| format!("{:.3}", millis(tally.latency.percentile(percent)))));
        row.push(format!("{:.3}", millis(tally.latency.max())));
        row.push(tally.failed().to_string());
        row.push(if self.is_open() { tally.late.to_string() } else { "-".to_owned() });
        row
    }

    /// Renders the lines below the table: each kind of failure, a missed rate, and the verdict.
    fn notes(&self) -> String {
        let Self { scenario: Scenario { name, .. }, tally, .. } = self;
        let mut text = String::new();
        for (failure, count) in &tally.failures {
            let _ = write!(text, "\n{name}: {count} x {failure}");
        }
        if tally.unsent > 0 {
            let callers = self.load.in_flight;
            let _ = write!(text, "\n{name}: {} calls were never sent: all {callers} callers were busy", tally.unsent);
        }
        if self.is_open() && !tally.rate_held() {
            let (late, calls, delay) = (tally.late, tally.calls(), millis(tally.max_start_delay));
            let _ = write!(text, "\n{name}: the rate of {} was NOT held: ", self.pace());
            let _ = write!(text, "{late} of {calls} calls started more than 10 ms late, by up to {delay:.0} ms");
        }
        if let Some(passed) = self.passed() {
            let word = if passed { "PASS" } else { "FAIL" };
            // A FAIL lists only the missed thresholds.
            let details = self.verdicts.iter().filter(|verdict| verdict.passed == passed).map(ToString::to_string);
            let _ = write!(text, "\n{word} {name}: {}", details.collect::<Vec<_>>().join("; "));
        }
        text
    }

    fn is_open(&self) -> bool {
        self.load.pace != Pace::Closed
    }

    /// Returns the results as a JSON object; times are in milliseconds unless the key says seconds.
    pub(super) fn json(&self) -> Value {
        let Self { scenario, load, connections, shape, tally, verdicts } = self;
        let mut latency: serde_json::Map<_, _> = PERCENTILES
            .iter()
            .map(|(name, percent)| ((*name).to_owned(), json!(millis(tally.latency.percentile(*percent)))))
            .collect();
        latency.insert("max".to_owned(), json!(millis(tally.latency.max())));
        let errors = tally.failures.iter();
        let errors =
            errors.map(|(failure, count)| json!({"code": failure.code, "reason": failure.reason, "count": count}));
        let verdicts =
            verdicts.iter().map(|ThresholdVerdict { threshold, detail, passed }| json!({"threshold": threshold, "detail": detail, "passed": passed}));
        json!({
            "scenario": scenario.name,
            "methods": scenario.methods,
            "rate": if let Pace::Rate(rate) = load.pace { json!(rate) } else { Value::Null },
            "in_flight": load.in_flight,
            "connections": connections,
            "seconds": load.time.as_secs_f64(),
            "keys": shape.keys,
            "size": shape.size,
            "batch": shape.batch,
            "subscribers": shape.subscribers,
            "calls": tally.calls(),
            "calls_per_second": tally.rate(),
            "items_per_second": tally.items_rate(),
            "latency_ms": latency,
            "errors": errors.collect::<Vec<_>>(),
            "failed": tally.failed(),
            "unsent": tally.unsent,
            "late": tally.late,
            "max_start_delay_ms": millis(tally.max_start_delay),
            "rate_held": if self.is_open() { json!(tally.rate_held()) } else { Value::Null },
            "thresholds": verdicts.collect::<Vec<_>>(),
            "passed": self.passed(),
        })
    }
}

/// Renders all results as a table with a row each, followed by their notes.
pub(super) fn table(reports: &[ScenarioReport]) -> String {
    let mut table = display::table();
    let ms = PERCENTILES.map(|(name, _)| format!("{name} ms"));
    let begin = ["scenario", "load", "calls/s", "items/s"].map(ToOwned::to_owned);
    let end = ["max ms", "errors", "late"].map(ToOwned::to_owned);
    table.set_header(begin.into_iter().chain(ms).chain(end));
    for report in reports {
        table.add_row(report.row());
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let notes: String = reports.iter().map(ScenarioReport::notes).collect();
    format!("{}{notes}", display::render(table))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use tidings_load::CallFailure;
    use tokio::time::Instant;

    use super::*;
    use crate::bench::shape::ShapeArgs;
    use crate::bench::thresholds::Thresholds;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        shape: ShapeArgs,
        #[command(flatten)]
        thresholds: Thresholds,
    }

    /// Returns the results of an open loop with 99 calls of 2 ms, one failed and one unsent call.
    fn report(flags: &[&str]) -> ScenarioReport {
        let Flags { shape, thresholds } = Flags::parse_from([&["bench"], flags].concat());
        let second = Duration::from_secs(1);
        let mut tally = RunTally::new(second);
        let begin = Instant::now();
        let refused = Err(CallFailure { code: "UNAVAILABLE", reason: "STORE_AWAY".into() });
        for number in 0..100 {
            let outcome = if number == 7 { &refused } else { &Ok(2) };
            tally.record_call(
                begin,
                begin + Duration::from_millis(number / 8),
                begin + Duration::from_millis(2),
                outcome,
            );
            tally.record_response(outcome);
        }
        tally.record_unsent(3 * second);
        let load = LoadSpec { pace: Pace::Rate(101.0), in_flight: 8, warm_up: second, time: second, grace: second };
        let verdicts = thresholds.judge(&tally);
        let scenario = Scenario::find("get-user").unwrap();
        ScenarioReport { scenario, load, connections: 4, shape: shape.into(), tally, verdicts }
    }

    #[test]
    fn the_table_lists_failures_and_a_missed_rate() {
        let text = table(&[report(&["--p99", "1s", "--max", "1s", "--min-rate", "90", "--max-errors", "50"])]);

        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[0], "scenario load calls/s items/s p50 ms p99 ms p99.9 ms max ms errors late");
        assert!(lines[1].starts_with("get-user 101/s 99 198 2.000 2.0"), "{}", lines[1]);
        assert!(lines[1].ends_with(" 2 12"), "{}", lines[1]);
        assert_eq!(lines[2], "get-user: 1 x UNAVAILABLE STORE_AWAY");
        assert_eq!(lines[3], "get-user: 1 calls were never sent: all 8 callers were busy");
        assert_eq!(
            lines[4],
            "get-user: the rate of 101/s was NOT held: 12 of 101 calls started more than 10 ms late, by up to 12 ms"
        );
        assert!(lines[5].starts_with("FAIL get-user: max 3s"), "{}", lines[5]);
        assert_eq!(lines.len(), 6);
    }

    #[test]
    fn a_pass_lists_the_measured_values() {
        let text = table(&[report(&["--min-rate", "90", "--max-errors", "2"])]);

        assert!(text.contains("\nPASS get-user: rate 99/s (at least 90/s); errors 1.980 %"), "{text}");
    }

    #[test]
    fn json_has_the_same_results() {
        let json = report(&["--p50", "1s"]).json();

        assert_eq!(json["errors"], json!([{"code": "UNAVAILABLE", "reason": "STORE_AWAY", "count": 1}]));
        assert_eq!((&json["calls"], &json["unsent"], &json["late"]), (&json!(101), &json!(1), &json!(12)));
        assert_eq!((&json["rate_held"], &json["passed"]), (&json!(false), &json!(false)));
        assert_eq!(json["latency_ms"]["p50"], json!(2.0));
    }
}
