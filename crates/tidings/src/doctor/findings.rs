//! The findings of all checks, as a table or as JSON.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::args::Output;
use crate::display;

/// The verdict of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckVerdict {
    /// The check passed.
    Ok,
    /// The target works, but needs attention.
    Warn,
    /// The target does not work as it should.
    Fail,
}

impl fmt::Display for CheckVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        })
    }
}

/// The result of one check.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) verdict: CheckVerdict,
    /// The checked instance or server, e.g. `user 127.0.0.1:7401`.
    pub(super) target: String,
    /// The name of the check, e.g. `reachable`.
    pub(super) check: &'static str,
    /// The state that the check found.
    pub(super) found: String,
    /// Advice; empty if nothing needs to be done.
    pub(super) advice: String,
}

/// The findings, in the order of the checks.
#[derive(Debug, Default)]
pub(super) struct DoctorFindings(Vec<Finding>);

impl DoctorFindings {
    /// Adds a check that passed.
    pub(super) fn ok(&mut self, target: &str, check: &'static str, found: impl Into<String>) {
        self.add(CheckVerdict::Ok, target, check, found.into(), "");
    }

    /// Adds a warning.
    pub(super) fn warn(&mut self, target: &str, check: &'static str, found: impl Into<String>, advice: &str) {
        self.add(CheckVerdict::Warn, target, check, found.into(), advice);
    }

    /// Adds a check that failed.
    pub(super) fn fail(&mut self, target: &str, check: &'static str, found: impl Into<String>, advice: &str) {
        self.add(CheckVerdict::Fail, target, check, found.into(), advice);
    }

    fn add(&mut self, verdict: CheckVerdict, target: &str, check: &'static str, found: String, advice: &str) {
        self.0.push(Finding { verdict, target: target.to_owned(), check, found, advice: advice.to_owned() });
    }

    /// Iterates over the findings.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter()
    }

    /// Returns the number of findings.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the number of findings with this verdict.
    pub(super) fn count(&self, verdict: CheckVerdict) -> usize {
        self.iter().filter(|finding| finding.verdict == verdict).count()
    }

    /// Renders the findings in the output format.
    pub(super) fn render(&self, output: Output) -> String {
        match output {
            Output::Table => self.table(),
            Output::Json => format!("{:#}", self.iter().map(json).collect::<Value>()),
            Output::Jsonl => self.iter().map(|finding| json(finding).to_string()).collect::<Vec<_>>().join("\n"),
        }
    }

    fn table(&self) -> String {
        let mut table = display::table();
        for Finding { verdict, target, check, found, advice } in self.iter() {
            let text = if advice.is_empty() { found.clone() } else { format!("{found} -> {advice}") };
            table.add_row([verdict.to_string(), target.clone(), (*check).to_owned(), display::one_line(&text)]);
        }
        let (all, warn, fail) = (self.len(), self.count(CheckVerdict::Warn), self.count(CheckVerdict::Fail));
        format!("{}\n{all} checks: {} ok, {warn} warn, {fail} FAIL", display::render(table), all - warn - fail)
    }
}

/// Renders the duration of a call.
pub(super) fn render_duration(time: Duration) -> String {
    if time < Duration::from_millis(1) { "less than 1ms".to_owned() } else { display::millis(time) }
}

fn json(Finding { verdict, target, check, found, advice }: &Finding) -> Value {
    let verdict = verdict.to_string().to_lowercase();
    json!({ "verdict": verdict, "target": target, "check": check, "found": found, "advice": advice })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> DoctorFindings {
        let mut findings = DoctorFindings::default();
        findings.ok("user a:1", "reachable", "responded in 1ms");
        findings.fail("user a:1", "health", "NOT_SERVING: postgres\nbreaker closed", "start postgres");
        findings
    }

    #[test]
    fn each_check_is_a_line_with_finding_and_advice() {
        let table = findings().render(Output::Table);
        let lines: Vec<_> = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();

        assert_eq!(
            lines,
            [
                "ok user a:1 reachable responded in 1ms",
                r"FAIL user a:1 health NOT_SERVING: postgres\nbreaker closed -> start postgres",
                "2 checks: 1 ok, 0 warn, 1 FAIL",
            ]
        );
    }

    #[test]
    fn each_check_is_an_object() {
        let json: Value = serde_json::from_str(&findings().render(Output::Json)).unwrap();
        let lines = findings().render(Output::Jsonl);

        assert_eq!(json[1]["verdict"], "fail");
        assert_eq!(lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Value>(), json);
    }
}
