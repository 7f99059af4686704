//! The summary of an import, for people and for programs.

use std::time::Duration;

use comfy_table::CellAlignment;
use serde_json::{Value, json};

use super::send::{End, Tally};
use crate::cli::Output;
use crate::shown;

/// Everything that an import tells at its end.
pub(super) struct Report<'a> {
    /// What became of the lines.
    pub(super) tally: &'a Tally,
    /// How it ended.
    pub(super) end: &'a End,
    /// How long it took.
    pub(super) total: Duration,
}

impl Report<'_> {
    /// Writes it down.
    pub(super) fn render(&self, output: Output) -> String {
        match output {
            Output::Table => self.table(),
            output => output.json(&self.json()),
        }
    }

    fn rows(&self) -> [(&'static str, Value); 5] {
        let Tally { created, already, refused, repeats, .. } = *self.tally;
        let millis = u64::try_from(self.total.as_millis()).unwrap_or(u64::MAX);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let seconds = json!(millis as f64 / 1000.0);
        [
            ("created", json!(created)),
            ("already there", json!(already)),
            ("refused", json!(refused)),
            ("calls repeated", json!(repeats)),
            ("seconds", seconds),
        ]
    }

    fn table(&self) -> String {
        let mut table = shown::table();
        for (name, value) in self.rows() {
            table.add_row([name.to_owned(), value.to_string()]);
        }
        if let Some(numbers) = table.column_mut(1) {
            numbers.set_cell_alignment(CellAlignment::Right);
        }
        let end = match self.ended() {
            "whole" => "every line is done".to_owned(),
            _ => format!("not finished: every line up to {} is done, and perhaps a few after it", self.tally.last),
        };
        format!("{}\n{end}", shown::render(table))
    }

    fn json(&self) -> Value {
        let mut json: serde_json::Map<_, _> =
            self.rows().into_iter().map(|(name, value)| (name.replace(' ', "_"), value)).collect();
        json.insert("ended".to_owned(), json!(self.ended()));
        json.insert("last_line".to_owned(), json!(self.tally.last));
        let refusals = self.tally.refusals.iter();
        let refusals = refusals
            .map(|(line, flaw)| json!({ "line": line, "field": flaw.field, "problem": flaw.problem }))
            .collect();
        json.insert("refusals".to_owned(), refusals);
        json.into()
    }

    fn ended(&self) -> &'static str {
        match self.end {
            End::Whole => "whole",
            End::Stopped => "at a refused line",
            End::Interrupted => "interrupted",
            End::Unread(_) | End::Unkept(_) => "at a file",
            End::Failed(_) => "at the service",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::Flaw;
    use super::*;

    fn render(end: &End, output: Output) -> String {
        let refusals = vec![(7, Flaw::of("age", "expected a whole number of years"))];
        let tally = Tally { created: 5, already: 2, refused: 1, refusals, last: 9, repeats: 3 };
        Report { tally: &tally, end, total: Duration::from_millis(1500) }.render(output)
    }

    #[test]
    fn people_read_how_many_became_what_and_whether_it_is_all() {
        let table = render(&End::Whole, Output::Table);
        let lines: Vec<_> = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();

        assert_eq!(
            lines,
            ["created 5", "already there 2", "refused 1", "calls repeated 3", "seconds 1.5", "every line is done"]
        );
        assert!(render(&End::Interrupted, Output::Table).contains("not finished: every line up to 9 is done"));
    }

    #[test]
    fn programs_read_each_refusal_with_line_and_field() {
        let json: Value = serde_json::from_str(&render(&End::Stopped, Output::Jsonl)).unwrap();

        assert_eq!((&json["created"], &json["already_there"]), (&json!(5), &json!(2)));
        assert_eq!(json["ended"], "at a refused line");
        assert_eq!(json["refusals"][0]["line"], 7);
        assert_eq!(json["refusals"][0]["field"], "age");
    }
}
