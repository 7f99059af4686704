//! Users in CSV: the first row names the columns.

use std::fmt;
use std::io::{self, BufRead};

use ::csv::{ByteRecord, ByteRecordsIntoIter, ReaderBuilder};
use tidings_proto::user::{CreateUserRequest, User};

use super::line::{Flaw, LONGEST, Line, Raw};
use crate::user::field::Field;

/// What a column holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Column {
    Id,
    RequestId,
    Field(Field),
}

impl Column {
    fn read(name: &str) -> Option<Self> {
        match name {
            "id" => Some(Self::Id),
            "request_id" => Some(Self::RequestId),
            _ => name.parse().ok().filter(|field| *field != Field::Attributes).map(Self::Field),
        }
    }

    fn set(&self, wish: &mut CreateUserRequest, user: &mut User, value: &str) -> Result<(), &'static str> {
        match self {
            Self::Id => value.clone_into(&mut user.id),
            Self::RequestId => value.clone_into(&mut wish.request_id),
            Self::Field(field) => field.set(user, value)?,
        }
        Ok(())
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id => f.write_str("id"),
            Self::RequestId => f.write_str("request_id"),
            Self::Field(field) => field.fmt(f),
        }
    }
}

/// The lines of a file after its first row.
pub(super) struct Rows<R> {
    columns: Vec<Column>,
    header: ByteRecord,
    /// What ends a line.
    end: &'static [u8],
    records: ByteRecordsIntoIter<io::Chain<R, &'static [u8]>>,
}

impl<R: BufRead> Rows<R> {
    /// Reads the first row.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn open(mut input: R) -> Result<Self, String> {
        // A row with too few cells is told as such; it ends nothing.
        let end = line_end(&mut input).map_err(|error| error.to_string())?;
        let input = input.chain(end); // so that the last row has one, too
        let mut reader = ReaderBuilder::new().flexible(true).from_reader(input);
        let header = reader.byte_headers().map_err(|error| error.to_string())?.clone();
        if header.is_empty() {
            return Err("expected a first row that names the columns, and there is none".to_owned());
        }
        let mut columns: Vec<Column> = Vec::new();
        for name in &header {
            let name = String::from_utf8_lossy(name);
            let column = Column::read(name.trim()).ok_or_else(|| {
                format!(
                    "the first row names a column '{}': expected id, handle, display_name, age, avatar_uri, bio, \
                     attributes.NAME or request_id",
                    crate::shown::one_line(&name)
                )
            })?;
            if columns.contains(&column) {
                return Err(format!("the first row names the column {column} twice"));
            }
            columns.push(column);
        }
        Ok(Self { columns, header, end, records: reader.into_byte_records() })
    }

    /// The first row.
    pub(super) fn header(&self) -> &ByteRecord {
        &self.header
    }

    /// Whether users have a name by which they are known again.
    pub(super) fn has_names(&self) -> bool {
        self.columns.iter().any(|column| matches!(column, Column::Id | Column::RequestId))
    }

    /// The number of the first line of a row that was just read. Its own position is before the empty lines that precede it,
    /// and the reader's is behind it, but before the second character of a line end that has two.
    fn number(&self, row: &ByteRecord) -> u64 {
        let behind = self.records.reader().position().line() + u64::from(self.end.len() > 1);
        let lines = row.as_slice().split(|byte| *byte == b'\n').count() as u64;
        behind.saturating_sub(lines)
    }

    fn wish(&self, row: &ByteRecord) -> Result<CreateUserRequest, Vec<Flaw>> {
        if row.len() != self.columns.len() {
            return Err(vec![Flaw::whole(&format_args!("expected {} cells, got {}", self.columns.len(), row.len()))]);
        }
        let (mut wish, mut user, mut flaws) = (CreateUserRequest::default(), User::default(), Vec::new());
        for (column, cell) in self.columns.iter().zip(row).filter(|(_, cell)| !cell.is_empty()) {
            let set = str::from_utf8(cell)
                .map_err(|_| "expected UTF-8")
                .and_then(|text| column.set(&mut wish, &mut user, text));
            flaws.extend(set.err().map(|problem| Flaw::of(column, problem)));
        }
        wish.user = Some(user);
        if flaws.is_empty() { Ok(wish) } else { Err(flaws) }
    }
}

/// What ends the first line.
fn line_end(input: &mut impl BufRead) -> io::Result<&'static [u8]> {
    let mut lines = input.fill_buf()?.split_inclusive(|byte| *byte == b'\n');
    Ok(if lines.next().is_some_and(|line| line.ends_with(b"\r\n")) { b"\r\n" } else { b"\n" })
}

impl<R: BufRead> Iterator for Rows<R> {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = match self.records.next()? {
            Ok(row) => row,
            Err(error) => return Some(Err(error.into())),
        };
        let number = self.number(&row);
        if row.as_slice().len() > LONGEST {
            let problem = format!("line {number} is longer than {LONGEST} bytes; is a quote missing there?");
            return Some(Err(io::Error::new(io::ErrorKind::InvalidData, problem)));
        }
        Some(Ok(Line { number, wish: self.wish(&row), raw: Raw::Cells(row) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Line> {
        Rows::open(text.as_bytes()).unwrap().map(Result::unwrap).collect()
    }

    fn user(line: &Line) -> &User {
        line.wish.as_ref().unwrap().user.as_ref().unwrap()
    }

    #[test]
    fn a_cell_is_the_field_that_its_column_names() {
        let lines = read("\u{feff}id,age,attributes.team,request_id\r\nada,36,ops,r1\r\nbob,,,\r\n");

        assert_eq!((user(&lines[0]).id.as_str(), user(&lines[0]).age), ("ada", Some(36)));
        assert_eq!(user(&lines[0]).attributes["team"], "ops");
        assert_eq!(lines[0].wish.as_ref().unwrap().request_id, "r1");
        assert_eq!(user(&lines[1]), &User { id: "bob".into(), ..User::default() });
    }

    #[test]
    fn a_row_has_the_number_of_its_first_line_whatever_ends_lines() {
        for end in ["\n", "\r\n"] {
            for last in ["", end] {
                let text = ["id,bio", "ada,\"one", "two\"", "", "bob,x", "cat,y"].join(end) + last;
                let lines = read(&text);

                assert_eq!(user(&lines[0]).bio, format!("one{end}two"));
                assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [2, 5, 6], "{text:?}");
            }
        }
    }

    #[test]
    fn all_that_is_wrong_with_a_row_is_told_by_column() {
        let mut lines = Rows::open(&b"id,age,bio\nada,old,\xff\nbob\neve,1,\n"[..]).unwrap().map(Result::unwrap);

        let told: Vec<_> = lines.next().unwrap().wish.unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(told, ["age: expected a whole number of years", "bio: expected UTF-8"]);
        assert_eq!(lines.next().unwrap().wish.unwrap_err(), [Flaw::whole("expected 3 cells, got 1")]);
        assert!(lines.next().unwrap().wish.is_ok(), "and the others go on");
    }

    #[test]
    fn a_first_row_that_means_nothing_is_refused() {
        for (text, told) in [
            ("", "there is none"),
            ("id,nick\n", "'nick'"),
            ("id,attributes\n", "'attributes'"),
            ("id,age,age\n", "the column age twice"),
        ] {
            let problem = Rows::open(text.as_bytes()).err().unwrap();
            assert!(problem.contains(told), "{text}: {problem}");
        }
    }

    #[test]
    fn what_is_no_csv_after_a_missing_quote_ends_the_reading() {
        let text = format!("id,bio\nada,\"{}", "x".repeat(LONGEST));

        assert!(Rows::open(text.as_bytes()).unwrap().next().unwrap().is_err());
    }
}
