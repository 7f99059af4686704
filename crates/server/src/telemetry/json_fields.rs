//! Formats the fields of a span as JSON, directly as they are recorded.
//!
//! The formatter of `tracing-subscriber` builds a map first, and the text from it. Every call has a
//! span, and almost no span is logged.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::span;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FormatFields, FormattedFields};

/// Writes the fields of spans as JSON objects.
#[derive(Clone, Copy, Debug)]
pub(super) struct JsonFields;

impl<'w> FormatFields<'w> for JsonFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        writer.write_char('{')?;
        let mut object = JsonObject { writer: &mut writer, first: true, result: Ok(()) };
        fields.record(&mut object);
        object.result?;
        writer.write_char('}')
    }

    fn add_fields(&self, current: &'w mut FormattedFields<Self>, fields: &span::Record<'_>) -> fmt::Result {
        current.fields.pop(); // the end of the object
        let first = current.fields.len() <= 1;
        let mut object = JsonObject { writer: &mut current.fields, first, result: Ok(()) };
        fields.record(&mut object);
        object.result?;
        current.fields.push('}');
        Ok(())
    }
}

/// A JSON object that is not closed yet.
struct JsonObject<'a> {
    writer: &'a mut dyn fmt::Write,
    first: bool,
    result: fmt::Result,
}

impl JsonObject<'_> {
    fn field(&mut self, field: &Field, value: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result) {
        if self.result.is_ok() {
            self.result = self.try_field(field, value);
        }
    }

    fn try_field(&mut self, field: &Field, value: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result) -> fmt::Result {
        if !std::mem::take(&mut self.first) {
            self.writer.write_char(',')?;
        }
        text(self.writer, field.name())?;
        self.writer.write_char(':')?;
        value(self.writer)
    }
}

impl Visit for JsonObject<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, |writer| text(writer, value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, |writer| write!(writer, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, |writer| write!(writer, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field, |writer| write!(writer, "{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.field(field, |writer| {
            writer.write_char('"')?;
            write!(JsonEscape(writer), "{value:?}")?;
            writer.write_char('"')
        });
    }
}

/// Writes a JSON string.
fn text(writer: &mut dyn fmt::Write, value: &str) -> fmt::Result {
    writer.write_char('"')?;
    JsonEscape(writer).write_str(value)?;
    writer.write_char('"')
}

/// Returns a text as a JSON string, with quotes.
pub(super) fn json_string(value: &str) -> String {
    let mut json = String::with_capacity(value.len() + 2);
    let _ = text(&mut json, value); // a String accepts everything
    json
}

/// A writer that escapes the content of a JSON string (RFC 8259, 7).
struct JsonEscape<'a>(&'a mut dyn fmt::Write);

impl fmt::Write for JsonEscape<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| c == '"' || c == '\\' || c < ' ') {
            let (plain, special) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut chars = special.chars();
            match chars.next() {
                Some(quoted @ ('"' | '\\')) => write!(self.0, "\\{quoted}")?,
                Some(control) => write!(self.0, "\\u{:04x}", u32::from(control))?,
                None => {}
            }
            rest = chars.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;
    use tracing::subscriber::with_default;
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::{fmt, registry};

    use super::*;

    #[derive(Clone, Default)]
    struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for SharedBuffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for SharedBuffer {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    /// Returns the lines of two events, each within a span, without their times.
    fn logged_lines(
        layer: impl FnOnce(SharedBuffer) -> Box<dyn tracing_subscriber::Layer<tracing_subscriber::Registry> + Send + Sync>,
    ) -> String {
        let lines = SharedBuffer::default();
        with_default(registry().with(layer(lines.clone())), || {
            let special_text = "a \"quoted\" \\ line\nand \u{1} more, ö";
            let span = tracing::info_span!(
                "rpc",
                method = special_text,
                count = 3_u64,
                less = -3,
                well = true,
                later = tracing::field::Empty
            );
            span.record("later", tracing::field::display("d\"e"));
            span.in_scope(|| tracing::info!("an event"));
            let empty = tracing::info_span!("empty", later = tracing::field::Empty);
            empty.record("later", "x");
            empty.in_scope(|| tracing::info!("another event"));
        });
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn fields_equal_those_of_the_default_json_formatter() {
        let json = |lines| fmt::layer().with_writer(lines).json().flatten_event(true).with_ansi(false).without_time();

        let own = logged_lines(|lines| Box::new(json(lines).fmt_fields(JsonFields)));
        let theirs = logged_lines(|lines| Box::new(json(lines)));

        // Compares the values; the order of fields may differ.
        let values =
            |lines: &str| lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
        assert_eq!(values(&own), values(&theirs));
        assert_eq!(values(&own).len(), 2);
        assert!(own.contains(r#""later":"d\"e""#), "{own}");
    }
}
