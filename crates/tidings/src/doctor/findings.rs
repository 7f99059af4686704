//! What was found, for people and for programs.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::Output;
use crate::shown;

/// What a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is as it should be.
    Ok,
    /// It works, but somebody should know.
    Warn,
    /// It does not do what it should.
    Fail,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        })
    }
}

/// One check, done.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    /// Of what: `user 127.0.0.1:7401`.
    pub(super) of: String,
    /// What was looked at.
    pub(super) check: &'static str,
    /// What was found.
    pub(super) found: String,
    /// What to do; empty if there is nothing to do.
    pub(super) advice: String,
}

/// All of them, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    /// It is as it should be.
    pub(super) fn ok(&mut self, of: &str, check: &'static str, found: impl Into<String>) {
        self.add(Verdict::Ok, of, check, found.into(), "");
    }

    /// It works, but.
    pub(super) fn warn(&mut self, of: &str, check: &'static str, found: impl Into<String>, advice: &str) {
        self.add(Verdict::Warn, of, check, found.into(), advice);
    }

    /// It does not do what it should.
    pub(super) fn fail(&mut self, of: &str, check: &'static str, found: impl Into<String>, advice: &str) {
        self.add(Verdict::Fail, of, check, found.into(), advice);
    }

    fn add(&mut self, verdict: Verdict, of: &str, check: &'static str, found: String, advice: &str) {
        self.0.push(Finding { verdict, of: of.to_owned(), check, found, advice: advice.to_owned() });
    }

    /// Each of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many mean this.
    pub(super) fn count(&self, verdict: Verdict) -> usize {
        self.iter().filter(|finding| finding.verdict == verdict).count()
    }

    /// Writes them down, a check a line.
    pub(super) fn render(&self, output: Output) -> String {
        match output {
            Output::Table => self.table(),
            Output::Json => format!("{:#}", self.iter().map(json).collect::<Value>()),
            Output::Jsonl => self.iter().map(|finding| json(finding).to_string()).collect::<Vec<_>>().join("\n"),
        }
    }

    fn table(&self) -> String {
        let mut table = shown::table();
        for Finding { verdict, of, check, found, advice } in self.iter() {
            let words = if advice.is_empty() { found.clone() } else { format!("{found} -> {advice}") };
            table.add_row([verdict.to_string(), of.clone(), (*check).to_owned(), shown::one_line(&words)]);
        }
        let (all, warn, fail) = (self.len(), self.count(Verdict::Warn), self.count(Verdict::Fail));
        format!("{}\n{all} checks: {} ok, {warn} warn, {fail} FAIL", shown::render(table), all - warn - fail)
    }
}

/// How long something took, for people.
pub(super) fn took(time: Duration) -> String {
    if time < Duration::from_millis(1) { "less than 1ms".to_owned() } else { shown::millis(time) }
}

fn json(Finding { verdict, of, check, found, advice }: &Finding) -> Value {
    let verdict = verdict.to_string().to_lowercase();
    json!({ "verdict": verdict, "of": of, "check": check, "found": found, "advice": advice })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Findings {
        let mut findings = Findings::default();
        findings.ok("user a:1", "reachable", "answered in 1ms");
        findings.fail("user a:1", "health", "NOT_SERVING: postgres\nbreaker closed", "start postgres");
        findings
    }

    #[test]
    fn each_check_is_a_line_with_what_was_found_and_what_to_do() {
        let table = findings().render(Output::Table);
        let lines: Vec<_> = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();

        assert_eq!(
            lines,
            [
                "ok user a:1 reachable answered in 1ms",
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
