//! The summary of an import, as a table or as JSON.

use std::time::Duration;

use comfy_table::CellAlignment;
use serde_json::{Value, json};

use super::send::{ImportEnd, ImportTally};
use crate::args::Output;
use crate::display;

/// The summary of an import.
pub(super) struct ImportReport<'a> {
    pub(super) tally: &'a ImportTally,
    pub(super) end: &'a ImportEnd,
    /// Duration of the whole import.
    pub(super) total: Duration,
}

impl ImportReport<'_> {
    /// Renders the summary in the output format.
    pub(super) fn render(&self, output: Output) -> String {
        match output {
            Output::Table => self.table(),
            output => output.json(&self.json()),
        }
    }

    fn rows(&self) -> [(&'static str, Value); 5] {
        let ImportTally { created, already_existed, refused, retries, .. } = *self.tally;
        let millis = u64::try_from(self.total.as_millis()).unwrap_or(u64::MAX);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let seconds = json!(millis as f64 / 1000.0);
        [
            ("created", json!(created)),
            ("already existed", json!(already_existed)),
            ("refused", json!(refused)),
            ("calls retried", json!(retries)),
            ("seconds", seconds),
        ]
    }

    fn table(&self) -> String {
        let mut table = display::table();
        for (name, value) in self.rows() {
            table.add_row([name.to_owned(), value.to_string()]);
        }
        if let Some(values) = table.column_mut(1) {
            values.set_cell_alignment(CellAlignment::Right);
        }
        let end = match self.end {
            ImportEnd::Completed => "completed: every line is finished".to_owned(),
            _ => format!("incomplete: finished up to line {}, and perhaps a few lines after it", self.tally.last_line),
        };
        format!("{}\n{end}", display::render(table))
    }

    fn json(&self) -> Value {
        let mut json: serde_json::Map<_, _> =
            self.rows().into_iter().map(|(name, value)| (name.replace(' ', "_"), value)).collect();
        json.insert("ended".to_owned(), json!(self.ended()));
        json.insert("last_line".to_owned(), json!(self.tally.last_line));
        let refusals = self.tally.refusals.iter();
        let refusals = refusals
            .map(|(line, error)| json!({ "line": line, "field": error.field, "problem": error.problem }))
            .collect();
        json.insert("refusals".to_owned(), refusals);
        json.into()
    }

    fn ended(&self) -> &'static str {
        match self.end {
            ImportEnd::Completed => "completed",
            ImportEnd::StoppedAtRefusal => "at a refused line",
            ImportEnd::Interrupted => "interrupted",
            ImportEnd::ReadFailed(_) | ImportEnd::RejectsFailed(_) => "file error",
            ImportEnd::ServiceFailed(_) => "service error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::LineError;
    use super::*;

    fn render(end: &ImportEnd, output: Output) -> String {
        let refusals = vec![(7, LineError::of("age", "expected a whole number of years"))];
        let tally = ImportTally { created: 5, already_existed: 2, refused: 1, refusals, last_line: 9, retries: 3 };
        ImportReport { tally: &tally, end, total: Duration::from_millis(1500) }.render(output)
    }

    #[test]
    fn the_table_has_the_counts_and_says_if_the_import_is_complete() {
        let table = render(&ImportEnd::Completed, Output::Table);
        let lines: Vec<_> = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();

        assert_eq!(
            lines,
            [
                "created 5",
                "already existed 2",
                "refused 1",
                "calls retried 3",
                "seconds 1.5",
                "completed: every line is finished"
            ]
        );
        assert!(render(&ImportEnd::Interrupted, Output::Table).contains("incomplete: finished up to line 9"));
    }

    #[test]
    fn json_has_each_refusal_with_line_and_field() {
        let json: Value = serde_json::from_str(&render(&ImportEnd::StoppedAtRefusal, Output::Jsonl)).unwrap();

        assert_eq!((&json["created"], &json["already_existed"]), (&json!(5), &json!(2)));
        assert_eq!(json["ended"], "at a refused line");
        assert_eq!(json["refusals"][0]["line"], 7);
        assert_eq!(json["refusals"][0]["field"], "age");
    }
}
