//! The summary of a replay, for people and for programs.

use std::time::Duration;

use comfy_table::CellAlignment;
use serde_json::{Value, json};

use super::findings::Findings;
use super::plan::Input;
use crate::cli::Output;
use crate::shown;

/// Everything that a replay tells at its end.
#[derive(Debug)]
pub(super) struct Report<'a> {
    /// How many conversations were sent.
    pub(super) conversations: usize,
    /// How many users were created.
    pub(super) users: usize,
    /// How many listened to each conversation.
    pub(super) readers: u16,
    /// What the files held.
    pub(super) input: Input,
    /// What sending and reading found.
    pub(super) findings: &'a Findings,
    /// How many calls were repeats.
    pub(super) retries: u64,
    /// How long sending the messages took.
    pub(super) sending: Duration,
    /// How long reading everything back took.
    pub(super) checking: Duration,
    /// How long everything took.
    pub(super) total: Duration,
}

/// How wide a number is at least: the table looks the same however fast it went.
const NUMBER: usize = 9;

impl Report<'_> {
    /// Writes it down.
    pub(super) fn render(&self, output: Output) -> String {
        match output {
            Output::Table => self.table(),
            Output::Json => format!("{:#}", self.json()),
            Output::Jsonl => self.json().to_string(),
        }
    }

    fn rows(&self) -> [(&'static str, Value); 33] {
        let Self { input, findings, .. } = self;
        let tally = &findings.tally;
        [
            ("conversations", json!(self.conversations)),
            ("lines", json!(input.lines)),
            ("messages sent", json!(tally.acknowledged)),
            ("messages deduplicated", json!(tally.deduplicated)),
            ("users", json!(self.users)),
            ("users deduplicated", json!(tally.users_deduplicated)),
            ("system lines skipped", json!(input.system)),
            ("malformed lines", json!(input.malformed)),
            ("malformed lines of replies", json!(input.malformed_replies)),
            ("bytes replaced", json!(input.replaced_bytes)),
            ("replies linked", json!(input.replies_linked)),
            ("replies to further lines", json!(input.replies_other)),
            ("replies from or to unsent lines", json!(input.replies_unsent)),
            ("retries", json!(self.retries)),
            ("seconds in all", seconds(self.total)),
            ("seconds sending", seconds(self.sending)),
            ("appends per second", rate(tally.acknowledged, self.sending)),
            ("readers of each conversation", json!(self.readers)),
            ("messages pushed to readers", json!(tally.pushed)),
            ("messages pushed again", json!(tally.pushed_again)),
            ("gaps and resets told to readers", json!(tally.told)),
            ("messages filled from history", json!(tally.filled)),
            ("locks lost and taken again", json!(tally.locks_lost)),
            ("messages read back", json!(tally.read_back)),
            ("seconds reading back", seconds(self.checking)),
            ("messages read back per second", rate(tally.read_back, self.checking)),
            ("pages from redis", json!(tally.pages_redis)),
            ("pages from postgres", json!(tally.pages_postgres)),
            ("users read again", json!(tally.users_read_again)),
            ("users from the cache", json!(tally.users_from_cache)),
            ("lost", json!(tally.lost)),
            ("doubled", json!(tally.doubled)),
            ("differences", json!(findings.differences)),
        ]
    }

    fn table(&self) -> String {
        let mut table = shown::table();
        for (name, value) in self.rows() {
            table.add_row([name.to_owned(), format!("{:>NUMBER$}", value.to_string())]);
        }
        if let Some(numbers) = table.column_mut(1) {
            numbers.set_cell_alignment(CellAlignment::Right);
        }
        let tally = &self.findings.tally;
        let verdict = if self.findings.differences == 0 { "everything was read back as sent" } else { "NOT equal" };
        let cache = format!("{} of {} from the cache", tally.users_from_cache, tally.users_read_again);
        format!("{}\n{verdict}; second reading of the users: {cache}", shown::render(table))
    }

    fn json(&self) -> Value {
        let mut json: serde_json::Map<_, _> =
            self.rows().into_iter().map(|(name, value)| (name.replace(' ', "_"), value)).collect();
        json.insert("first_difference".to_owned(), json!(self.findings.first.as_ref().map(ToString::to_string)));
        Value::Object(json)
    }
}

fn seconds(time: Duration) -> Value {
    json!((time.as_secs_f64() * 1000.0).round() / 1000.0)
}

#[expect(clippy::cast_precision_loss, reason = "a rate is rounded anyway")]
fn rate(count: usize, time: Duration) -> Value {
    json!((count as f64 / time.as_secs_f64().max(1e-6)).round())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(output: Output) -> String {
        let mut findings = Findings::default();
        findings.tally.acknowledged = 10;
        let report = Report {
            conversations: 2,
            users: 3,
            readers: 2,
            input: Input::default(),
            findings: &findings,
            retries: 0,
            sending: Duration::from_millis(500),
            checking: Duration::ZERO,
            total: Duration::from_secs(1),
        };
        report.render(output)
    }

    #[test]
    fn the_table_has_a_line_for_each_count() {
        let table = report(Output::Table);

        let line = table.lines().find(|line| line.contains("appends per second")).unwrap();
        assert_eq!(line.split_whitespace().last(), Some("20.0"));
        assert!(
            table.ends_with("everything was read back as sent; second reading of the users: 0 of 0 from the cache")
        );
    }

    #[test]
    fn the_json_has_the_same_in_one_line_or_in_many() {
        let line = report(Output::Jsonl);
        let json: Value = serde_json::from_str(&line).unwrap();

        assert_eq!(line.lines().count(), 1);
        assert_eq!((&json["messages_sent"], &json["first_difference"]), (&json!(10), &Value::Null));
        assert_eq!(serde_json::from_str::<Value>(&report(Output::Json)).unwrap(), json);
    }
}
