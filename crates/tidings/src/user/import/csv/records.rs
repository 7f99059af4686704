//! The records of a CSV file, as RFC 4180 has them. A quote that is out of place is told: to guess would be to swallow lines, as
//! the reader of the csv crate does, which has no way to tell. Where nothing is out of place it reads the same, by a test.

use std::io::{self, BufRead, ErrorKind};

use ::csv::ByteRecord;

/// The longest record. The cells of the largest user fit several times, even with every quote of them doubled.
pub(super) const LONGEST: usize = 64 * 1024;

/// A record, which may stand on several lines.
#[derive(Debug)]
pub(super) struct Record {
    /// The number of its first line, counted from 1.
    pub(super) number: u64,
    /// What it says.
    pub(super) cells: ByteRecord,
    /// As it stands in the file, without its end.
    pub(super) text: Vec<u8>,
    /// The first cell whose quotes are wrong, counted from 0, and what is wrong with them.
    pub(super) misquoted: Option<(usize, String)>,
}

/// Where in a cell the reading is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before its first byte.
    Start,
    /// In a cell without quotes, or behind wrong ones.
    Plain,
    /// Behind the quote that opens it.
    Quoted,
    /// Behind a quote that closes it, unless another follows.
    Closed,
}

/// Reads records, but not lines that are empty.
pub(super) struct Records<R> {
    input: R,
    /// The number of the line that is read.
    line: u64,
    /// Whether the last byte was the first of a line end that may have two.
    after_return: bool,
}

impl<R: BufRead> Records<R> {
    /// Reads nothing yet.
    pub(super) fn new(input: R) -> Self {
        Self { input, line: 1, after_return: false }
    }

    /// The next record, `None` after the last.
    ///
    /// # Errors
    /// The input can not be read, or the record is too long: nobody knows where the next one begins then.
    pub(super) fn next(&mut self) -> io::Result<Option<Record>> {
        let mut reading = Reading::new(self.line);
        loop {
            let bytes = match self.input.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if bytes.is_empty() {
                return Ok(reading.end());
            }
            let (mut taken, mut whole) = (0, false);
            for byte in bytes {
                let in_line = self.line;
                if *byte == b'\r' || (*byte == b'\n' && !self.after_return) {
                    self.line += 1;
                }
                self.after_return = *byte == b'\r';
                whole = reading.take(*byte, in_line);
                taken += 1;
                if whole || reading.text.len() > LONGEST {
                    break;
                }
            }
            self.input.consume(taken);
            if reading.text.len() > LONGEST {
                return Err(io::Error::new(ErrorKind::InvalidData, reading.too_long()));
            }
            if whole && !reading.is_empty() {
                return Ok(reading.end());
            }
            if whole {
                reading = Reading::new(self.line);
            }
        }
    }
}

/// A record that is being read.
struct Reading {
    number: u64,
    cells: ByteRecord,
    text: Vec<u8>,
    misquoted: Option<(usize, String)>,
    cell: Vec<u8>,
    place: Place,
}

impl Reading {
    fn new(number: u64) -> Self {
        let (cells, misquoted) = (ByteRecord::new(), None);
        Self { number, cells, text: Vec::new(), misquoted, cell: Vec::new(), place: Place::Start }
    }

    fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Takes the next byte, which stands in this line. Returns whether it ends the record.
    fn take(&mut self, byte: u8, line: u64) -> bool {
        let ends_line = matches!(byte, b'\r' | b'\n');
        if ends_line && self.place != Place::Quoted {
            return true;
        }
        self.text.push(byte);
        match (self.place, byte) {
            (Place::Quoted, b'"') => self.place = Place::Closed,
            (Place::Start, b'"') => self.place = Place::Quoted,
            (Place::Start | Place::Plain | Place::Closed, b',') => self.end_cell(),
            // Two quotes in a quoted cell are one of its text.
            (Place::Closed, b'"') | (Place::Quoted, _) => self.put(byte, Place::Quoted),
            (Place::Closed, _) => {
                self.misquote(format!("text follows the quote that closes this cell{}", self.elsewhere(line)));
                self.put(byte, Place::Plain);
            }
            (Place::Start | Place::Plain, _) => self.put(byte, Place::Plain),
        }
        false
    }

    fn put(&mut self, byte: u8, place: Place) {
        self.cell.push(byte);
        self.place = place;
    }

    fn end_cell(&mut self) {
        self.cells.push_field(&self.cell);
        self.cell.clear();
        self.place = Place::Start;
    }

    /// Keeps the first thing that is wrong.
    fn misquote(&mut self, problem: String) {
        let cell = self.cells.len();
        self.misquoted.get_or_insert((cell, problem));
    }

    /// Where that is, unless it is where the record begins.
    fn elsewhere(&self, line: u64) -> String {
        if line == self.number { String::new() } else { format!(", in line {line}; is a quote missing before?") }
    }

    fn too_long(&self) -> String {
        let hint = if self.place == Place::Quoted { "; perhaps a quote is not closed there" } else { "" };
        format!("the record that begins in line {} is longer than {LONGEST} bytes{hint}", self.number)
    }

    /// The record, `None` if there was nothing.
    fn end(mut self) -> Option<Record> {
        if self.is_empty() {
            return None;
        }
        if self.place == Place::Quoted {
            self.misquote("a quote opens this cell and is never closed".to_owned());
        }
        self.end_cell();
        let Self { number, cells, text, misquoted, .. } = self;
        Some(Record { number, cells, text, misquoted })
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    /// Number, cells, and what is wrong with their quotes.
    type Read = (u64, Vec<String>, Option<(usize, String)>);

    /// All records, which are the same however little is read at once.
    fn read(text: &str) -> Vec<Read> {
        let all = |capacity| {
            let mut records = Records::new(BufReader::with_capacity(capacity, text.as_bytes()));
            let mut all = Vec::new();
            while let Some(record) = records.next().unwrap() {
                let cells = record.cells.iter().map(|cell| String::from_utf8(cell.to_vec()).unwrap()).collect();
                all.push((record.number, cells, record.misquoted));
            }
            all
        };
        assert_eq!(all(1), all(4096));
        all(4096)
    }

    #[test]
    fn what_is_quoted_rightly_is_read_as_the_standard_reader_reads_it() {
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

            assert!(records.iter().all(|(_, _, misquoted)| misquoted.is_none()), "{text:?}");
            assert_eq!(records.into_iter().map(|(_, cells, _)| cells).collect::<Vec<_>>(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_quote_that_is_never_closed_is_told_of_the_line_and_cell_that_it_opens() {
        let records = read("id,bio\nada,\"Ada\nbob,Bob\ncat,Cat\n");

        assert_eq!(records.len(), 2);
        let (number, _, misquoted) = &records[1];
        assert_eq!(*number, 2);
        assert_eq!(*misquoted, Some((1, "a quote opens this cell and is never closed".to_owned())));
    }

    #[test]
    fn text_behind_a_closing_quote_is_told_and_the_next_record_is_read() {
        for line in ["ada,\"a\" b", "ada,\"x\"y\"", "ada,\"x\"\"y\" "] {
            let records = read(&format!("id,bio\n{line}\nbob,Bob\n"));

            let misquoted = records[1].2.as_ref().unwrap();
            assert_eq!(*misquoted, (1, "text follows the quote that closes this cell".to_owned()), "{line}");
            assert_eq!((records[2].0, records[2].1[0].as_str(), &records[2].2), (3, "bob", &None), "{line}");
        }
    }

    #[test]
    fn a_missing_quote_that_another_one_closes_is_told_with_both_lines() {
        let records = read("id,bio\nada,\"Ada\nbob,\"Bob\"\ncat,\"Cat\"\n");

        assert_eq!(records[1].0, 2);
        let told = "text follows the quote that closes this cell, in line 3; is a quote missing before?";
        assert_eq!(records[1].2, Some((1, told.to_owned())));
        assert_eq!((records[2].0, records[2].1[0].as_str(), &records[2].2), (4, "cat", &None));
    }

    #[test]
    fn a_record_that_is_too_long_is_told_with_the_line_at_which_it_begins() {
        let text = format!("id,bio\nada,\"{}", "x\n".repeat(LONGEST));
        let mut records = Records::new(text.as_bytes());

        records.next().unwrap();
        let problem = records.next().unwrap_err().to_string();
        assert!(problem.contains("begins in line 2 ") && problem.contains("a quote is not closed"), "{problem}");
    }
}
