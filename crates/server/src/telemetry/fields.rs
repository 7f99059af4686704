//! The fields of a span as JSON, written as they come.
//!
//! The formatter that comes with the log makes a map of them first, and of that the text; each call has a span, and nearly none
//! of them has a line.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::span;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FormatFields, FormattedFields};

/// Writes the fields of spans.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        writer.write_char('{')?;
        let mut object = Object { writer: &mut writer, first: true, written: Ok(()) };
        fields.record(&mut object);
        object.written?;
        writer.write_char('}')
    }

    fn add_fields(&self, current: &'w mut FormattedFields<Self>, fields: &span::Record<'_>) -> fmt::Result {
        current.fields.pop(); // the end of the object
        let first = current.fields.len() <= 1;
        let mut object = Object { writer: &mut current.fields, first, written: Ok(()) };
        fields.record(&mut object);
        object.written?;
        current.fields.push('}');
        Ok(())
    }
}

/// An object that is not at its end.
struct Object<'a> {
    writer: &'a mut dyn fmt::Write,
    first: bool,
    written: fmt::Result,
}

impl Object<'_> {
    fn field(&mut self, field: &Field, value: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result) {
        if self.written.is_ok() {
            self.written = self.try_field(field, value);
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

impl Visit for Object<'_> {
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
            write!(Escaped(writer), "{value:?}")?;
            writer.write_char('"')
        });
    }
}

/// A JSON string.
fn text(writer: &mut dyn fmt::Write, value: &str) -> fmt::Result {
    writer.write_char('"')?;
    Escaped(writer).write_str(value)?;
    writer.write_char('"')
}

/// The inside of a JSON string (RFC 8259, 7).
struct Escaped<'a>(&'a mut dyn fmt::Write);

impl fmt::Write for Escaped<'_> {
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
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    /// The line of an event within a span, without its time.
    fn line(
        layer: impl FnOnce(Lines) -> Box<dyn tracing_subscriber::Layer<tracing_subscriber::Registry> + Send + Sync>,
    ) -> String {
        let lines = Lines::default();
        with_default(registry().with(layer(lines.clone())), || {
            let nasty = "a \"quoted\" \\ line\nand \u{1} more, ö";
            let span = tracing::info_span!(
                "rpc",
                method = nasty,
                count = 3_u64,
                less = -3,
                well = true,
                later = tracing::field::Empty
            );
            span.record("later", tracing::field::display("d\"e"));
            span.in_scope(|| tracing::info!("told"));
            let empty = tracing::info_span!("empty", later = tracing::field::Empty);
            empty.record("later", "x");
            empty.in_scope(|| tracing::info!("told, too"));
        });
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn fields_are_the_same_as_those_of_the_formatter_that_comes_with_the_log() {
        let json = |lines| fmt::layer().with_writer(lines).json().flatten_event(true).with_ansi(false).without_time();

        let own = line(|lines| Box::new(json(lines).fmt_fields(Fields)));
        let theirs = line(|lines| Box::new(json(lines)));

        // In whatever order.
        let values =
            |lines: &str| lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
        assert_eq!(values(&own), values(&theirs));
        assert_eq!(values(&own).len(), 2);
        assert!(own.contains(r#""later":"d\"e""#), "{own}");
    }
}
