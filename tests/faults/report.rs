//! The report of the drills: one table, printed to the terminal and written to `drills.md` and
//! `drills.json` in the target directory.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;

use crate::load::CallOutcome;
use crate::support::print_figures;
use crate::workload::LedgerCounts;

/// The results of all drills of this process.
static RESULTS: Mutex<Vec<DrillResult>> = Mutex::new(Vec::new());

/// The result of one drill for one service.
#[derive(Clone, Debug)]
pub(crate) struct DrillResult {
    pub(crate) drill: &'static str,
    pub(crate) service: &'static str,
    /// Calls per second of the open loop.
    pub(crate) offered: f64,
    /// Successful calls per second before, during and after the fault.
    pub(crate) rates: [f64; 3],
    /// Failed calls by error.
    pub(crate) errors: Vec<(String, u64)>,
    /// The longest latency, from the intended start of a call.
    pub(crate) slowest: Duration,
    /// Time after the fault in which calls failed.
    pub(crate) recovery: Duration,
    pub(crate) ledger: LedgerCounts,
    /// True if the service has a seeded bug, which the ledger must show.
    pub(crate) seeded: bool,
    violations: Vec<String>,
}

impl DrillResult {
    /// Creates a result without calls.
    pub(crate) fn new(drill: &'static str, service: &'static str, offered: f64) -> Self {
        Self {
            drill,
            service,
            offered,
            rates: [0.0; 3],
            errors: Vec::new(),
            slowest: Duration::ZERO,
            recovery: Duration::ZERO,
            ledger: LedgerCounts::default(),
            seeded: false,
            violations: Vec::new(),
        }
    }

    /// Counts the failed calls by error. An error that no contract allows is a violation.
    pub(crate) fn count_errors(&mut self, calls: &[CallOutcome]) {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for error in calls.iter().filter_map(|call| call.error.as_ref()) {
            *counts.entry(error.to_string()).or_default() += 1;
            if !error.is_documented() {
                self.add_violation(format!("no contract allows {error}"));
            }
        }
        self.errors = counts.into_iter().collect();
    }

    /// Returns the number of failed calls.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.iter().map(|(_, count)| count).sum()
    }

    /// Adds a violation, once.
    pub(crate) fn add_violation(&mut self, violation: String) {
        if !self.violations.contains(&violation) {
            self.violations.push(violation);
        }
    }

    /// Returns all violations, those of the ledger included, one per line.
    pub(crate) fn violations(&self) -> Vec<String> {
        let ledger = (self.ledger.violations() > 0).then(|| format!("{:?}", self.ledger));
        let all = self.violations.iter().cloned().chain(ledger);
        all.map(|violation| format!("{}: {}: {violation}", self.drill, self.service)).collect()
    }

    fn verdict(&self) -> &'static str {
        match (self.seeded, self.ledger.violations(), self.violations().is_empty()) {
            (true, 0, _) => "MISSED",
            (true, ..) => "CAUGHT",
            (false, _, true) => "PASS",
            (false, ..) => "FAIL",
        }
    }

    /// Returns the cells of the table, in the order of [`HEAD`].
    fn cells(&self) -> [String; 15] {
        let rate = |rate: f64| format!("{rate:.0}");
        let seconds = |time: Duration| format!("{:.2}", time.as_secs_f64());
        let errors: Vec<_> = self.errors.iter().map(|(error, count)| format!("{count} {error}")).collect();
        let ledger = self.ledger;
        [
            self.drill.to_owned(),
            self.service.to_owned(),
            rate(self.offered),
            rate(self.rates[0]),
            rate(self.rates[1]),
            rate(self.rates[2]),
            seconds(self.slowest),
            seconds(self.recovery),
            if errors.is_empty() { "0".to_owned() } else { errors.join(", ") },
            ledger.acknowledged.to_string(),
            ledger.reported_missing.to_string(),
            ledger.lost.to_string(),
            format!("{} / {}", ledger.duplicated, ledger.reordered),
            ledger.reverted.to_string(),
            self.verdict().to_owned(),
        ]
    }

    fn json(&self) -> serde_json::Value {
        let LedgerCounts { acknowledged, lost, duplicated, reordered, reverted, reported_missing } = self.ledger;
        json!({
            "drill": self.drill,
            "service": self.service,
            "offered_per_second": self.offered,
            "succeeded_per_second": { "before": self.rates[0], "during": self.rates[1], "after": self.rates[2] },
            "slowest_seconds": self.slowest.as_secs_f64(),
            "recovery_seconds": self.recovery.as_secs_f64(),
            "failed": self.errors.iter().cloned().collect::<BTreeMap<_, _>>(),
            "acknowledged": acknowledged,
            "reported_missing": reported_missing,
            "lost": lost,
            "duplicated": duplicated,
            "reordered": reordered,
            "reverted": reverted,
            "verdict": self.verdict(),
            "violations": self.violations(),
        })
    }
}

const HEAD: [&str; 15] = [
    "drill",
    "service",
    "offered/s",
    "before/s",
    "during/s",
    "after/s",
    "slowest s",
    "recovery s",
    "failed",
    "acknowledged",
    "reported missing",
    "lost",
    "duplicated / reordered",
    "reverted",
    "verdict",
];

/// Adds results to the report, and prints them.
pub(crate) fn add(results: &[DrillResult]) {
    let mut all = RESULTS.lock();
    all.extend_from_slice(results);
    print_figures(&format!("\n{}", table(results)));
    let json: Vec<_> = all.iter().map(DrillResult::json).collect();
    fs::write(target_file("drills.json"), serde_json::to_string_pretty(&json).unwrap()).unwrap();
    fs::write(target_file("drills.md"), table(&all)).unwrap();
}

/// Writes violations, acknowledgements and the outcome of each call to a file, for analysis.
pub(crate) fn write_ledger(result: &DrillResult, acknowledged: Vec<String>, calls: &[CallOutcome]) {
    let drill = result.drill.replace(|c: char| !c.is_alphanumeric(), "-");
    let path = target_file(&format!("drills-{drill}-{}.txt", result.service));
    let calls = calls.iter().map(|call| format!("{call:?}"));
    let lines = result.violations().into_iter().chain(acknowledged).chain(calls).collect::<Vec<_>>();
    fs::write(&path, lines.join("\n")).unwrap();
    print_figures(&format!("ledger of the failed drill: {}\n", path.display()));
}

/// Returns the path of a file in the target directory.
fn target_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join(name)
}

/// Returns a Markdown table with aligned columns.
fn table(results: &[DrillResult]) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(results.iter().map(DrillResult::cells));
    let widths: Vec<_> =
        (0..HEAD.len()).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap()).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            write!(text, "| {cell:<width$} ").unwrap();
        }
        text.push_str("|\n");
        if number == 0 {
            for width in &widths {
                write!(text, "|{}", "-".repeat(width + 2)).unwrap();
            }
            text.push_str("|\n");
        }
    }
    text
}
