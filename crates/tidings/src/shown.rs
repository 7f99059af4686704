//! What every verb shows to people in the same way.

use std::time::{Duration, SystemTime};

use comfy_table::{Table, presets};

/// A table without lines.
pub(crate) fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// Writes a table from the left margin on.
pub(crate) fn render(mut table: Table) -> String {
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    table.trim_fmt()
}

/// A length of time, to the millisecond.
pub(crate) fn duration(time: Option<prost_types::Duration>) -> String {
    millis(time.and_then(|time| Duration::try_from(time).ok()).unwrap_or_default())
}

/// A length of time, to the millisecond.
pub(crate) fn millis(time: Duration) -> String {
    let millis = Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    humantime::format_duration(millis).to_string()
}

/// A moment, to the millisecond; nothing if there is none.
pub(crate) fn moment(time: Option<prost_types::Timestamp>) -> String {
    let time = time.and_then(|time| SystemTime::try_from(time).ok());
    time.map(|time| humantime::format_rfc3339_millis(time).to_string()).unwrap_or_default()
}

/// A text in one line, in which nothing moves the cursor.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for sign in text.chars() {
        if sign.is_control() { line.extend(sign.escape_default()) } else { line.push(sign) }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_line_moves_the_cursor() {
        assert_eq!(one_line("péage\n\x1b[2J"), r"péage\n\u{1b}[2J");
    }

    #[test]
    fn nobody_reads_microseconds() {
        assert_eq!(millis(Duration::from_micros(63_001_999)), "1m 3s 1ms");
        assert_eq!(moment(None), "");
    }
}
