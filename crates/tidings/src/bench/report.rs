//! What was measured, for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::CellAlignment;
use serde_json::{Value, json};

use super::bar::Verdict;
use super::ground::Shape;
use super::scenarios::Scenario;
use crate::load::{Load, Pace, Tally};
use crate::shown;

/// Percentiles that are told.
const PERCENTILES: [(&str, f64); 3] = [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9)];

/// What is known of one scenario.
pub(super) struct Report {
    pub(super) scenario: &'static Scenario,
    pub(super) load: Load,
    pub(super) connections: u16,
    pub(super) shape: Shape,
    pub(super) tally: Tally,
    pub(super) verdicts: Vec<Verdict>,
}

impl Report {
    /// Whether the bar was reached; nothing if there was none.
    pub(super) fn passed(&self) -> Option<bool> {
        (!self.verdicts.is_empty()).then(|| self.verdicts.iter().all(|verdict| verdict.passed))
    }

    /// What was asked of the generator, e.g. `500/s` or `64 callers`.
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

    /// What has to be said besides: each kind of error, whether the rate was held, and the verdict.
    fn notes(&self) -> String {
        let Self { scenario: Scenario { name, .. }, tally, .. } = self;
        let mut text = String::new();
        for (fault, count) in &tally.faults {
            let _ = write!(text, "\n{name}: {count} x {fault}");
        }
        if tally.unsent > 0 {
            let callers = self.load.in_flight;
            let _ = write!(text, "\n{name}: {} calls were never sent: all {callers} callers were busy", tally.unsent);
        }
        if self.is_open() && !tally.held_its_rate() {
            let (late, calls, latest) = (tally.late, tally.calls(), millis(tally.latest));
            let _ = write!(text, "\n{name}: the rate of {} was NOT held: ", self.pace());
            let _ = write!(text, "{late} of {calls} calls began late, the latest by {latest:.0} ms");
        }
        if let Some(passed) = self.passed() {
            let word = if passed { "PASS" } else { "FAIL" };
            // What was reached is only of interest if all was.
            let said = self.verdicts.iter().filter(|verdict| verdict.passed == passed).map(ToString::to_string);
            let _ = write!(text, "\n{word} {name}: {}", said.collect::<Vec<_>>().join("; "));
        }
        text
    }

    fn is_open(&self) -> bool {
        self.load.pace != Pace::Closed
    }

    /// Everything, as an object; times are in milliseconds.
    pub(super) fn json(&self) -> Value {
        let Self { scenario, load, connections, shape, tally, verdicts } = self;
        let mut latency: serde_json::Map<_, _> = PERCENTILES
            .iter()
            .map(|(name, percent)| ((*name).to_owned(), json!(millis(tally.latency.percentile(*percent)))))
            .collect();
        latency.insert("max".to_owned(), json!(millis(tally.latency.max())));
        let errors = tally.faults.iter();
        let errors = errors.map(|(fault, count)| json!({"code": fault.code, "reason": fault.reason, "count": count}));
        let verdicts =
            verdicts.iter().map(|Verdict { what, said, passed }| json!({"what": what, "said": said, "passed": passed}));
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
            "latest_ms": millis(tally.latest),
            "held_its_rate": if self.is_open() { json!(tally.held_its_rate()) } else { Value::Null },
            "bar": verdicts.collect::<Vec<_>>(),
            "passed": self.passed(),
        })
    }
}

/// All of them, a line each, and what has to be said besides.
pub(super) fn table(reports: &[Report]) -> String {
    let mut table = shown::table();
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
    let notes: String = reports.iter().map(Report::notes).collect();
    format!("{}{notes}", shown::render(table))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use tokio::time::Instant;

    use super::*;
    use crate::bench::bar::Bar;
    use crate::bench::scenarios;
    use crate::load::Fault;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        shape: Shape,
        #[command(flatten)]
        bar: Bar,
    }

    /// 99 good calls of 2 ms and one that was refused, of an open loop.
    fn report(flags: &[&str]) -> Report {
        let Flags { shape, bar } = Flags::parse_from([&["bench"], flags].concat());
        let second = Duration::from_secs(1);
        let mut tally = Tally::new(second);
        let begin = Instant::now();
        let refused = Err(Fault { code: "UNAVAILABLE", reason: "STORE_AWAY".into() });
        for number in 0..100 {
            let answer = if number == 7 { &refused } else { &Ok(2) };
            tally.call(begin, begin + Duration::from_millis(number / 8), begin + Duration::from_millis(2), answer);
            tally.arrival(answer);
        }
        tally.unsent(3 * second);
        let load = Load { pace: Pace::Rate(101.0), in_flight: 8, warm_up: second, time: second, grace: second };
        let verdicts = bar.judge(&tally);
        Report { scenario: scenarios::find("get-user").unwrap(), load, connections: 4, shape, tally, verdicts }
    }

    #[test]
    fn the_table_says_what_failed_and_why_and_that_the_rate_was_not_held() {
        let text = table(&[report(&["--p99", "1s", "--max", "1s", "--min-rate", "90", "--max-errors", "50"])]);

        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[0], "scenario load calls/s items/s p50 ms p99 ms p99.9 ms max ms errors late");
        assert!(lines[1].starts_with("get-user 101/s 99 198 2.000 2.0"), "{}", lines[1]);
        assert!(lines[1].ends_with(" 2 12"), "{}", lines[1]);
        assert_eq!(lines[2], "get-user: 1 x UNAVAILABLE STORE_AWAY");
        assert_eq!(lines[3], "get-user: 1 calls were never sent: all 8 callers were busy");
        assert_eq!(
            lines[4],
            "get-user: the rate of 101/s was NOT held: 12 of 101 calls began late, the latest by 12 ms"
        );
        assert!(lines[5].starts_with("FAIL get-user: max 3s"), "{}", lines[5]);
        assert_eq!(lines.len(), 6);
    }

    #[test]
    fn what_was_reached_is_a_pass_with_its_figures() {
        let text = table(&[report(&["--min-rate", "90", "--max-errors", "2"])]);

        assert!(text.contains("\nPASS get-user: rate 99/s, asked for at least 90/s; errors 1.980 %"), "{text}");
    }

    #[test]
    fn json_says_the_same() {
        let json = report(&["--p50", "1s"]).json();

        assert_eq!(json["errors"], json!([{"code": "UNAVAILABLE", "reason": "STORE_AWAY", "count": 1}]));
        assert_eq!((&json["calls"], &json["unsent"], &json["late"]), (&json!(101), &json!(1), &json!(12)));
        assert_eq!((&json["held_its_rate"], &json["passed"]), (&json!(false), &json!(false)));
        assert_eq!(json["latency_ms"]["p50"], json!(2.0));
    }
}
