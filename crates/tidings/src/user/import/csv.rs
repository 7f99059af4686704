//! Users in CSV, with a first row that names the columns.

mod records;

use std::fmt;
use std::io::{self, BufRead};

use ::csv::ByteRecord;
use tidings_proto::user::{CreateUserRequest, User};

use self::records::{CsvRecord, CsvRecords};
use super::line::{ImportLine, LineError, RawLine};
use crate::user::field::Field;

/// A column of the file.
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

    fn set(&self, request: &mut CreateUserRequest, user: &mut User, value: &str) -> Result<(), &'static str> {
        match self {
            Self::Id => value.clone_into(&mut user.id),
            Self::RequestId => value.clone_into(&mut request.request_id),
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

/// An iterator over the rows of a file after its first row.
pub(super) struct CsvReader<R> {
    columns: Vec<Column>,
    header: ByteRecord,
    records: CsvRecords<R>,
}

impl<R: BufRead> CsvReader<R> {
    /// Creates a reader and reads the first row.
    ///
    /// # Errors
    /// The first row is absent or malformed; the text says what is expected.
    pub(super) fn open(input: R) -> Result<Self, String> {
        let mut records = CsvRecords::new(input);
        let header = match records.next().map_err(|error| error.to_string())? {
            Some(CsvRecord { quote_error: Some((cell, problem)), .. }) => {
                return Err(format!("the first row, cell {}: {problem}", cell + 1));
            }
            Some(record) => record.cells,
            None => return Err("the file is empty: expected a first row that names the columns".to_owned()),
        };
        let mut columns: Vec<Column> = Vec::new();
        for name in &header {
            let name = String::from_utf8_lossy(name);
            let column = Column::read(name.trim()).ok_or_else(|| {
                format!(
                    "unknown column '{}' in the first row: expected id, handle, display_name, age, avatar_uri, bio, \
                     attributes.NAME or request_id",
                    crate::display::one_line(&name)
                )
            })?;
            if columns.contains(&column) {
                return Err(format!("duplicate column {column} in the first row"));
            }
            columns.push(column);
        }
        Ok(Self { columns, header, records })
    }

    /// Returns the first row.
    pub(super) fn header(&self) -> &ByteRecord {
        &self.header
    }

    /// Returns true if a column identifies the users, so that the import is idempotent.
    pub(super) fn has_id_column(&self) -> bool {
        self.columns.iter().any(|column| matches!(column, Column::Id | Column::RequestId))
    }

    /// Returns an error for a cell, named by its column if there is one.
    fn error(&self, cell: usize, problem: &str) -> LineError {
        match self.columns.get(cell) {
            Some(column) => LineError::of(column, problem),
            None => LineError::whole(&format_args!("cell {}: {problem}", cell + 1)),
        }
    }

    fn request(&self, row: &ByteRecord) -> Result<CreateUserRequest, Vec<LineError>> {
        if row.len() != self.columns.len() {
            return Err(vec![LineError::whole(&format_args!(
                "expected {} cells, got {}",
                self.columns.len(),
                row.len()
            ))]);
        }
        let (mut request, mut user, mut errors) = (CreateUserRequest::default(), User::default(), Vec::new());
        for (column, cell) in self.columns.iter().zip(row).filter(|(_, cell)| !cell.is_empty()) {
            let set = str::from_utf8(cell)
                .map_err(|_| "expected UTF-8")
                .and_then(|text| column.set(&mut request, &mut user, text));
            errors.extend(set.err().map(|problem| LineError::of(column, problem)));
        }
        request.user = Some(user);
        if errors.is_empty() { Ok(request) } else { Err(errors) }
    }
}

impl<R: BufRead> Iterator for CsvReader<R> {
    type Item = io::Result<ImportLine>;

    fn next(&mut self) -> Option<Self::Item> {
        let CsvRecord { number, cells, text, quote_error } = match self.records.next() {
            Ok(record) => record?,
            Err(error) => return Some(Err(error)),
        };
        let line = match quote_error {
            None => ImportLine { number, request: self.request(&cells), raw: RawLine::Cells(cells) },
            // With wrong quotes the cells are a guess: the file of rejects gets the row as read.
            Some((cell, problem)) => {
                ImportLine { number, request: Err(vec![self.error(cell, &problem)]), raw: RawLine::Text(text) }
            }
        };
        Some(Ok(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<ImportLine> {
        CsvReader::open(text.as_bytes()).unwrap().map(Result::unwrap).collect()
    }

    fn user(line: &ImportLine) -> &User {
        line.request.as_ref().unwrap().user.as_ref().unwrap()
    }

    #[test]
    fn each_cell_sets_the_field_of_its_column() {
        let lines = read("id,age,attributes.team,request_id\r\nada,36,ops,r1\r\nbob,,,\r\n");

        assert_eq!((user(&lines[0]).id.as_str(), user(&lines[0]).age), ("ada", Some(36)));
        assert_eq!(user(&lines[0]).attributes["team"], "ops");
        assert_eq!(lines[0].request.as_ref().unwrap().request_id, "r1");
        assert_eq!(user(&lines[1]), &User { id: "bob".into(), ..User::default() });
    }

    #[test]
    fn a_row_has_the_number_of_its_first_line() {
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
    fn every_error_of_a_row_is_reported_by_column() {
        let mut lines = CsvReader::open(&b"id,age,bio\nada,old,\xff\nbob\neve,1,\n"[..]).unwrap().map(Result::unwrap);

        let errors: Vec<_> = lines.next().unwrap().request.unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(errors, ["age: expected a whole number of years", "bio: expected UTF-8"]);
        assert_eq!(lines.next().unwrap().request.unwrap_err(), [LineError::whole("expected 3 cells, got 1")]);
        assert!(lines.next().unwrap().request.is_ok(), "the next row is read");
    }

    #[test]
    fn a_malformed_first_row_is_refused() {
        for (text, expected) in [
            ("", "the file is empty"),
            ("id,nick\n", "'nick'"),
            ("id,attributes\n", "'attributes'"),
            ("id,age,age\n", "duplicate column age"),
        ] {
            let problem = CsvReader::open(text.as_bytes()).err().unwrap();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
    }

    /// The row is kept as read, for the file of rejects.
    #[test]
    fn wrong_quotes_are_reported_by_line_and_column() {
        let lines = read("id,bio\nada,\"Ada\" L.\nbob,\"Bob\ncat,Cat\n");

        let error = |line: &ImportLine| (line.number, line.request.as_ref().unwrap_err()[0].to_string());
        assert_eq!(error(&lines[0]), (2, "bio: text follows the quote that closes this cell".to_owned()));
        assert_eq!(error(&lines[1]), (3, "bio: the quote that opens this cell is not closed".to_owned()));
        assert!(matches!(&lines[1].raw, RawLine::Text(text) if text == b"bob,\"Bob\ncat,Cat\n"), "{:?}", lines[1].raw);
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn a_first_row_with_an_unclosed_quote_is_refused() {
        let problem = CsvReader::open(&b"id,\"bio\nada,Ada\n"[..]).err().unwrap();

        assert!(problem.contains("cell 2: the quote that opens this cell is not closed"), "{problem}");
    }
}
