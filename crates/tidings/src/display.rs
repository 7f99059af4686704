//! Formats tables, times and text in the same way for every verb.

use std::time::{Duration, SystemTime};

use comfy_table::{Table, presets};

/// Creates a table without borders.
pub(crate) fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// Renders a table without a left margin.
pub(crate) fn render(mut table: Table) -> String {
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    table.trim_fmt()
}

/// Formats a duration of a message, truncated to milliseconds; unset means zero.
pub(crate) fn duration(time: Option<prost_types::Duration>) -> String {
    millis(time.and_then(|time| Duration::try_from(time).ok()).unwrap_or_default())
}

/// Formats a duration, truncated to milliseconds, e.g. `1m 3s 1ms`.
pub(crate) fn millis(time: Duration) -> String {
    let millis = Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    humantime::format_duration(millis).to_string()
}

/// Formats a timestamp as RFC 3339 with milliseconds; empty if unset.
pub(crate) fn timestamp(time: Option<prost_types::Timestamp>) -> String {
    let time = time.and_then(|time| SystemTime::try_from(time).ok());
    time.map(|time| humantime::format_rfc3339_millis(time).to_string()).unwrap_or_default()
}

/// Escapes control characters, so that the text stays in one line and cannot move the cursor.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() { line.extend(char.escape_default()) } else { line.push(char) }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(one_line("péage\n\x1b[2J"), r"péage\n\u{1b}[2J");
    }

    #[test]
    fn durations_are_truncated_to_milliseconds() {
        assert_eq!(millis(Duration::from_micros(63_001_999)), "1m 3s 1ms");
        assert_eq!(timestamp(None), "");
    }
}
