//! The records of a CSV file, as defined by RFC 4180.
//!
//! Unlike the `csv` crate, this parser reports misplaced quotes: guessing would swallow lines. For
//! input without misplaced quotes a test asserts equal results.

use std::io::{self, BufRead, ErrorKind};

use ::csv::ByteRecord;

/// The longest record in bytes: several times the largest user, even with every quote doubled.
pub(super) const RECORD_BYTES_MAX: usize = 64 * 1024;

/// A record, which may span several lines.
#[derive(Debug)]
pub(super) struct CsvRecord {
    /// The number of the first line, counted from 1.
    pub(super) number: u64,
    /// The unquoted cells.
    pub(super) cells: ByteRecord,
    /// The record as read, without the line end.
    pub(super) text: Vec<u8>,
    /// The first cell with wrong quotes, counted from 0, and the error text.
    pub(super) quote_error: Option<(usize, String)>,
}

/// The parser's position relative to a cell and its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ParserState {
    /// Before its first byte.
    Start,
    /// In an unquoted cell, or after a misplaced quote.
    Plain,
    /// After the opening quote.
    Quoted,
    /// After a quote that closes the cell, unless another quote follows.
    Closed,
}

/// A reader of records; skips empty lines.
pub(super) struct CsvRecords<R> {
    input: R,
    /// The number of the current line, counted from 1.
    line: u64,
    /// True if the last byte was `\r`: a following `\n` belongs to the same line end.
    after_return: bool,
}

impl<R: BufRead> CsvRecords<R> {
    /// Creates a reader; nothing is read yet.
    pub(super) fn new(input: R) -> Self {
        Self { input, line: 1, after_return: false }
    }

    /// Returns the next record, `None` after the last.
    ///
    /// # Errors
    /// The input cannot be read, or the record is longer than [`RECORD_BYTES_MAX`]. Reading cannot
    /// continue then: the start of the next record is unknown.
    pub(super) fn next(&mut self) -> io::Result<Option<CsvRecord>> {
        let mut parser = RecordParser::new(self.line);
        loop {
            let bytes = match self.input.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if bytes.is_empty() {
                return Ok(parser.end());
            }
            let (mut taken, mut whole) = (0, false);
            for byte in bytes {
                let in_line = self.line;
                if *byte == b'\r' || (*byte == b'\n' && !self.after_return) {
                    self.line += 1;
                }
                self.after_return = *byte == b'\r';
                whole = parser.take(*byte, in_line);
                taken += 1;
                if whole || parser.text.len() > RECORD_BYTES_MAX {
                    break;
                }
            }
            self.input.consume(taken);
            if parser.text.len() > RECORD_BYTES_MAX {
                return Err(io::Error::new(ErrorKind::InvalidData, parser.too_long()));
            }
            if whole && !parser.is_empty() {
                return Ok(parser.end());
            }
            if whole {
                parser = RecordParser::new(self.line);
            }
        }
    }
}

/// A parser of one record.
struct RecordParser {
    number: u64,
    cells: ByteRecord,
    text: Vec<u8>,
    quote_error: Option<(usize, String)>,
    cell: Vec<u8>,
    state: ParserState,
}

impl RecordParser {
    fn new(number: u64) -> Self {
        let (cells, quote_error) = (ByteRecord::new(), None);
        Self { number, cells, text: Vec::new(), quote_error, cell: Vec::new(), state: ParserState::Start }
    }

    fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Parses the next byte, of line `line`; returns true if it ends the record.
    fn take(&mut self, byte: u8, line: u64) -> bool {
        let ends_line = matches!(byte, b'\r' | b'\n');
        if ends_line && self.state != ParserState::Quoted {
            return true;
        }
        self.text.push(byte);
        match (self.state, byte) {
            (ParserState::Quoted, b'"') => self.state = ParserState::Closed,
            (ParserState::Start, b'"') => self.state = ParserState::Quoted,
            (ParserState::Start | ParserState::Plain | ParserState::Closed, b',') => self.end_cell(),
            // Two quotes in a quoted cell are one quote of its text.
            (ParserState::Closed, b'"') | (ParserState::Quoted, _) => self.put(byte, ParserState::Quoted),
            (ParserState::Closed, _) => {
                self.note_quote_error(format!("text follows the quote that closes this cell{}", self.line_hint(line)));
                self.put(byte, ParserState::Plain);
            }
            (ParserState::Start | ParserState::Plain, _) => self.put(byte, ParserState::Plain),
        }
        false
    }

    fn put(&mut self, byte: u8, state: ParserState) {
        self.cell.push(byte);
        self.state = state;
    }

    fn end_cell(&mut self) {
        self.cells.push_field(&self.cell);
        self.cell.clear();
        self.state = ParserState::Start;
    }

    /// Records a quote error, unless the record already has one.
    fn note_quote_error(&mut self, problem: String) {
        let cell = self.cells.len();
        self.quote_error.get_or_insert((cell, problem));
    }

    /// Names `line` in an error text, unless it is the record's first line.
    fn line_hint(&self, line: u64) -> String {
        if line == self.number { String::new() } else { format!(", in line {line}; is a quote missing before it?") }
    }

    fn too_long(&self) -> String {
        let hint = if self.state == ParserState::Quoted { "; perhaps one of its quotes is not closed" } else { "" };
        format!("the record that begins in line {} is longer than {RECORD_BYTES_MAX} bytes{hint}", self.number)
    }

    /// Returns the parsed record, `None` if it is empty.
    fn end(mut self) -> Option<CsvRecord> {
        if self.is_empty() {
            return None;
        }
        if self.state == ParserState::Quoted {
            self.note_quote_error("the quote that opens this cell is not closed".to_owned());
        }
        self.end_cell();
        let Self { number, cells, text, quote_error, .. } = self;
        Some(CsvRecord { number, cells, text, quote_error })
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    /// Line number, cells and quote error of a record.
    type ParsedRecord = (u64, Vec<String>, Option<(usize, String)>);

    /// Reads all records; asserts that they do not depend on the buffer size.
    fn read(text: &str) -> Vec<ParsedRecord> {
        let all = |capacity| {
            let mut records = CsvRecords::new(BufReader::with_capacity(capacity, text.as_bytes()));
            let mut all = Vec::new();
            while let Some(record) = records.next().unwrap() {
                let cells = record.cells.iter().map(|cell| String::from_utf8(cell.to_vec()).unwrap()).collect();
                all.push((record.number, cells, record.quote_error));
            }
            all
        };
        assert_eq!(all(1), all(4096));
        all(4096)
    }

    #[test]
    fn well_formed_input_is_read_as_by_the_csv_crate() {
        for text in [
            "a,b\n1,2\n",
            "a,\"b,\"\"c\"\"\"\r\n,\r\n\r\n\"\",x",
            "\"one\r\ntwo\",\"\"\"\"\n\n\nlast\"quote,b\"c\"\n",
            "a,\r\rb,\r",
            "",
        ] {
            let mut reader = ::csv::ReaderBuilder::new().flexible(true).has_headers(false).from_reader(text.as_bytes());
            let expected: Vec<Vec<_>> =
                reader.records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect();
            let records = read(text);

            assert!(records.iter().all(|(_, _, quote_error)| quote_error.is_none()), "{text:?}");
            assert_eq!(records.into_iter().map(|(_, cells, _)| cells).collect::<Vec<_>>(), expected, "{text:?}");
        }
    }

    #[test]
    fn an_unclosed_quote_is_reported_at_its_line_and_cell() {
        let records = read("id,bio\nada,\"Ada\nbob,Bob\ncat,Cat\n");

        assert_eq!(records.len(), 2);
        let (number, _, quote_error) = &records[1];
        assert_eq!(*number, 2);
        assert_eq!(*quote_error, Some((1, "the quote that opens this cell is not closed".to_owned())));
    }

    /// The next record is read as usual.
    #[test]
    fn text_after_a_closing_quote_is_reported() {
        for line in ["ada,\"a\" b", "ada,\"x\"y\"", "ada,\"x\"\"y\" "] {
            let records = read(&format!("id,bio\n{line}\nbob,Bob\n"));

            let quote_error = records[1].2.as_ref().unwrap();
            assert_eq!(*quote_error, (1, "text follows the quote that closes this cell".to_owned()), "{line}");
            assert_eq!((records[2].0, records[2].1[0].as_str(), &records[2].2), (3, "bob", &None), "{line}");
        }
    }

    #[test]
    fn a_missing_quote_is_reported_with_both_lines() {
        let records = read("id,bio\nada,\"Ada\nbob,\"Bob\"\ncat,\"Cat\"\n");

        assert_eq!(records[1].0, 2);
        let expected = "text follows the quote that closes this cell, in line 3; is a quote missing before it?";
        assert_eq!(records[1].2, Some((1, expected.to_owned())));
        assert_eq!((records[2].0, records[2].1[0].as_str(), &records[2].2), (4, "cat", &None));
    }

    #[test]
    fn a_record_that_is_too_long_is_reported_with_its_first_line() {
        let text = format!("id,bio\nada,\"{}", "x\n".repeat(RECORD_BYTES_MAX));
        let mut records = CsvRecords::new(text.as_bytes());

        records.next().unwrap();
        let problem = records.next().unwrap_err().to_string();
        assert!(problem.contains("begins in line 2 ") && problem.contains("quotes is not closed"), "{problem}");
    }
}
