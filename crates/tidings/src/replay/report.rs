//! The summary of a replay, for people and for programs.

use std::time::Duration;

use comfy_table::CellAlignment;
use serde_json::{Value, json};

use super::findings::ReplayFindings;
use super::plan::InputCounts;
use crate::args::Output;
use crate::display;

/// The values of the summary.
#[derive(Debug)]
pub(super) struct ReplayReport<'a> {
    pub(super) conversations: usize,
    pub(super) users: usize,
    /// Readers of each conversation.
    pub(super) readers: u16,
    pub(super) input: InputCounts,
    pub(super) findings: &'a ReplayFindings,
    /// Retries of all calls.
    pub(super) retries: u64,
    /// Duration of sending the messages.
    pub(super) sending: Duration,
    /// Duration of reading everything back.
    pub(super) checking: Duration,
    /// Duration of the replay.
    pub(super) total: Duration,
}

/// Minimum width of a value, so that the table has the same width for fast and slow replays.
const VALUE_WIDTH: usize = 9;

impl ReplayReport<'_> {
    /// Renders the summary in an output format.
    pub(super) fn render(&self, output: Output) -> String {
        match output {
            Output::Table => self.table(),
            Output::Json => format!("{:#}", self.json()),
            Output::Jsonl => self.json().to_string(),
        }
    }

    fn rows(&self) -> [(&'static str, Value); 33] {
        let Self { input, findings, .. } = self;
        let counts = &findings.counts;
        [
            ("conversations", json!(self.conversations)),
            ("lines", json!(input.lines)),
            ("messages sent", json!(counts.acknowledged)),
            ("messages deduplicated", json!(counts.deduplicated)),
            ("users", json!(self.users)),
            ("users deduplicated", json!(counts.users_deduplicated)),
            ("system lines skipped", json!(input.system)),
            ("malformed lines", json!(input.malformed)),
            ("malformed lines of replies", json!(input.malformed_replies)),
            ("bytes replaced", json!(input.replaced_bytes)),
            ("replies linked", json!(input.replies_linked)),
            ("replies to further lines", json!(input.replies_other)),
            ("replies from or to unsent lines", json!(input.replies_unsent)),
            ("retries", json!(self.retries)),
            ("seconds in total", seconds(self.total)),
            ("seconds sending", seconds(self.sending)),
            ("appends per second", rate(counts.acknowledged, self.sending)),
            ("readers of each conversation", json!(self.readers)),
            ("messages pushed to readers", json!(counts.pushed)),
            ("messages pushed again", json!(counts.pushed_again)),
            ("gaps and resets received", json!(counts.gaps_and_resets)),
            ("messages filled from history", json!(counts.filled)),
            ("locks lost and reacquired", json!(counts.locks_lost)),
            ("messages read back", json!(counts.read_back)),
            ("seconds reading back", seconds(self.checking)),
            ("messages read back per second", rate(counts.read_back, self.checking)),
            ("pages from redis", json!(counts.pages_redis)),
            ("pages from postgres", json!(counts.pages_postgres)),
            ("users read again", json!(counts.users_read_again)),
            ("users from the cache", json!(counts.users_from_cache)),
            ("lost", json!(counts.lost)),
            ("duplicated", json!(counts.duplicated)),
            ("differences", json!(findings.differences)),
        ]
    }

    fn table(&self) -> String {
        let mut table = display::table();
        for (name, value) in self.rows() {
            table.add_row([name.to_owned(), format!("{:>VALUE_WIDTH$}", value.to_string())]);
        }
        if let Some(values) = table.column_mut(1) {
            values.set_cell_alignment(CellAlignment::Right);
        }
        let counts = &self.findings.counts;
        let verdict =
            if self.findings.differences == 0 { "everything was read back as sent" } else { "DIFFERENCES found" };
        let cache = format!("{} of {} from the cache", counts.users_from_cache, counts.users_read_again);
        format!("{}\n{verdict}; second read of the users: {cache}", display::render(table))
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
        let mut findings = ReplayFindings::default();
        findings.counts.acknowledged = 10;
        let report = ReplayReport {
            conversations: 2,
            users: 3,
            readers: 2,
            input: InputCounts::default(),
            findings: &findings,
            retries: 0,
            sending: Duration::from_millis(500),
            checking: Duration::ZERO,
            total: Duration::from_secs(1),
        };
        report.render(output)
    }

    #[test]
    fn the_table_has_a_line_for_each_value() {
        let table = report(Output::Table);

        let line = table.lines().find(|line| line.contains("appends per second")).unwrap();
        assert_eq!(line.split_whitespace().last(), Some("20.0"));
        assert!(table.ends_with("everything was read back as sent; second read of the users: 0 of 0 from the cache"));
    }

    #[test]
    fn json_and_jsonl_hold_the_same_values() {
        let line = report(Output::Jsonl);
        let json: Value = serde_json::from_str(&line).unwrap();

        assert_eq!(line.lines().count(), 1);
        assert_eq!((&json["messages_sent"], &json["first_difference"]), (&json!(10), &Value::Null));
        assert_eq!(serde_json::from_str::<Value>(&report(Output::Json)).unwrap(), json);
    }
}
