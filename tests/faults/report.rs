//! What drills showed: one table, on the terminal, as `drills.json` and as `drills.md` beside what was built.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;

use crate::load::Call;
use crate::support::say;
use crate::work::Account;

/// The lines of all drills of this process.
static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());

/// What one drill showed of one service.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) drill: &'static str,
    pub(crate) service: &'static str,
    /// Calls a second that it did in a closed loop, beside the other services.
    pub(crate) capacity: f64,
    /// Calls a second that it was asked for.
    pub(crate) offered: f64,
    /// Calls a second that were done before, during and after the fault.
    pub(crate) rates: [f64; 3],
    /// How many calls were refused, and why.
    pub(crate) refusals: Vec<(String, u64)>,
    /// The longest that a call took from when it was due.
    pub(crate) slowest: Duration,
    /// How long after the fault calls were refused.
    pub(crate) recovery: Duration,
    pub(crate) account: Account,
    /// Whether it has a bug on purpose, which has to be found.
    pub(crate) seeded: bool,
    complaints: Vec<String>,
}

impl Line {
    /// A line that shows nothing yet.
    pub(crate) fn new(drill: &'static str, service: &'static str, capacity: f64, offered: f64) -> Self {
        Self {
            drill,
            service,
            capacity,
            offered,
            rates: [0.0; 3],
            refusals: Vec::new(),
            slowest: Duration::ZERO,
            recovery: Duration::ZERO,
            account: Account::default(),
            seeded: false,
            complaints: Vec::new(),
        }
    }

    /// Counts what was refused.
    pub(crate) fn count(&mut self, calls: &[Call]) {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for refused in calls.iter().filter_map(|call| call.refused.as_ref()) {
            *counts.entry(refused.to_string()).or_default() += 1;
            if !refused.is_documented() {
                self.complain(format!("no contract allows {refused}"));
            }
        }
        self.refusals = counts.into_iter().collect();
    }

    /// How many calls were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refusals.iter().map(|(_, count)| count).sum()
    }

    pub(crate) fn complain(&mut self, complaint: String) {
        if !self.complaints.contains(&complaint) {
            self.complaints.push(complaint);
        }
    }

    /// What is not as it must be, a line each.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let account = (self.account.wrong() > 0).then(|| format!("{:?}", self.account));
        let all = self.complaints.iter().cloned().chain(account);
        all.map(|what| format!("{}: {}: {what}", self.drill, self.service)).collect()
    }

    fn verdict(&self) -> &'static str {
        match (self.seeded, self.account.wrong(), self.wrong().is_empty()) {
            (true, 0, _) => "MISSED",
            (true, ..) => "CAUGHT",
            (false, _, true) => "PASS",
            (false, ..) => "FAIL",
        }
    }

    /// Its cells, as people read them.
    fn cells(&self) -> [String; 15] {
        let rate = |rate: f64| format!("{rate:.0}");
        let seconds = |time: Duration| format!("{:.2}", time.as_secs_f64());
        let refused: Vec<_> = self.refusals.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let account = self.account;
        [
            self.drill.to_owned(),
            self.service.to_owned(),
            rate(self.offered),
            rate(self.rates[0]),
            rate(self.rates[1]),
            rate(self.rates[2]),
            seconds(self.slowest),
            seconds(self.recovery),
            if refused.is_empty() { "0".to_owned() } else { refused.join(", ") },
            account.acknowledged.to_string(),
            account.told.to_string(),
            account.lost.to_string(),
            format!("{} / {}", account.duplicated, account.reordered),
            account.gone_back.to_string(),
            self.verdict().to_owned(),
        ]
    }

    fn json(&self) -> serde_json::Value {
        let Account { acknowledged, lost, duplicated, reordered, gone_back, told } = self.account;
        json!({
            "drill": self.drill,
            "service": self.service,
            "capacity_per_second": self.capacity,
            "offered_per_second": self.offered,
            "done_per_second": { "before": self.rates[0], "during": self.rates[1], "after": self.rates[2] },
            "slowest_seconds": self.slowest.as_secs_f64(),
            "recovery_seconds": self.recovery.as_secs_f64(),
            "refused": self.refusals.iter().cloned().collect::<BTreeMap<_, _>>(),
            "acknowledged": acknowledged,
            "told": told,
            "lost": lost,
            "duplicated": duplicated,
            "reordered": reordered,
            "gone_back": gone_back,
            "verdict": self.verdict(),
            "wrong": self.wrong(),
        })
    }
}

const HEAD: [&str; 15] = [
    "drill",
    "service",
    "offered/s",
    "before",
    "during",
    "after",
    "slowest s",
    "recovery s",
    "refused",
    "acknowledged",
    "told",
    "lost",
    "doubled / reordered",
    "gone back",
    "",
];

/// Adds what a drill showed to the report, and prints it.
pub(crate) fn add(lines: &[Line]) {
    let mut all = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    all.extend_from_slice(lines);
    say(&format!("\n{}", table(lines)));
    let json: Vec<_> = all.iter().map(Line::json).collect();
    fs::write(place("drills.json"), serde_json::to_string_pretty(&json).unwrap()).unwrap();
    fs::write(place("drills.md"), table(&all)).unwrap();
}

/// Keeps what was acknowledged and what became of each call, for whoever has to find out what went wrong.
pub(crate) fn keep(line: &Line, acknowledged: Vec<String>, calls: &[Call]) {
    let path =
        place(&format!("drills-{}-{}.txt", line.drill.replace(|c: char| !c.is_alphanumeric(), "-"), line.service));
    let calls = calls.iter().map(|call| format!("{call:?}"));
    let all = line.wrong().into_iter().chain(acknowledged).chain(calls).collect::<Vec<_>>();
    fs::write(&path, all.join("\n")).unwrap();
    say(&format!("what it did is in {}\n", path.display()));
}

/// A file in the target directory.
fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join(name)
}

/// A table in Markdown, that can be read as text, too.
fn table(lines: &[Line]) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(lines.iter().map(Line::cells));
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
