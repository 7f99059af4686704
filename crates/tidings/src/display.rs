//! Formats tables, times and text in the same way for every verb.

use std::fmt::{self, Display, Write as _};
use std::time::{Duration, SystemTime};

use comfy_table::{Table, presets};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory as _};

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

/// Escapes control and format characters, so that the text stays in one line, cannot move the
/// cursor, and shows what it contains.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\n' | '\r' | '\t' => line.extend(char.escape_default()),
            _ => escape_into(&mut line, char),
        }
    }
    line
}

/// Formats text with all control and format characters escaped as in JSON, except line feeds and
/// tabs. Text of others can therefore neither move the cursor nor reorder or hide what is printed,
/// and JSON keeps its meaning.
pub(crate) struct Printable<T>(pub(crate) T);

impl<T: Display> Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(EscapingWriter(f), "{}", self.0)
    }
}

/// Escapes what is written.
struct EscapingWriter<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for EscapingWriter<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut escaped = String::with_capacity(text.len());
        for char in text.chars() {
            if matches!(char, '\n' | '\t') { escaped.push(char) } else { escape_into(&mut escaped, char) }
        }
        self.0.write_str(&escaped)
    }
}

/// Appends a character; a control or format character as `\u202e`, above U+FFFF as two of them.
fn escape_into(text: &mut String, char: char) {
    if is_invisible(char) {
        for unit in char.encode_utf16(&mut [0; 2]) {
            let _ = write!(text, "\\u{unit:04x}");
        }
    } else {
        text.push(char);
    }
}

/// Returns true for characters without a glyph that act on the terminal or on other characters:
/// controls, bidirectional overrides, zero-width characters, tags, line and paragraph separators.
fn is_invisible(char: char) -> bool {
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator};
    !char.is_ascii_graphic() && matches!(char.general_category(), Control | Format | LineSeparator | ParagraphSeparator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(one_line("péage\n\x1b[2J"), r"péage\n\u001b[2J");
    }

    #[test]
    fn format_characters_are_escaped_as_in_json() {
        let text = "a\u{202e}b\u{200b}\u{e0041}\u{2028}\u{85}é 日本 😀";
        let escaped = r"a\u202eb\u200b\udb40\udc41\u2028\u0085é 日本 😀";

        assert_eq!(one_line(text), escaped);
        assert_eq!(Printable(format_args!("{text}\n\tx\r")).to_string(), format!("{escaped}\n\tx\\u000d"));
        let json = serde_json::json!({ "name": text });
        assert_eq!(Printable(&json).to_string().parse::<serde_json::Value>().unwrap(), json);
    }

    #[test]
    fn durations_are_truncated_to_milliseconds() {
        assert_eq!(millis(Duration::from_micros(63_001_999)), "1m 3s 1ms");
        assert_eq!(timestamp(None), "");
    }
}
