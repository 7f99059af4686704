//! Users in CSV: the first row names the columns.

mod records;

use std::fmt;
use std::io::{self, BufRead};

use ::csv::ByteRecord;
use tidings_proto::user::{CreateUserRequest, User};

use self::records::{Record, Records};
use super::line::{Flaw, Line, Raw};
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
    records: Records<R>,
}

impl<R: BufRead> Rows<R> {
    /// Reads the first row.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn open(input: R) -> Result<Self, String> {
        let mut records = Records::new(input);
        let header = match records.next().map_err(|error| error.to_string())? {
            Some(Record { misquoted: Some((cell, problem)), .. }) => {
                return Err(format!("the first row, cell {}: {problem}", cell + 1));
            }
            Some(record) => record.cells,
            None => return Err("expected a first row that names the columns, and there is none".to_owned()),
        };
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
        Ok(Self { columns, header, records })
    }

    /// The first row.
    pub(super) fn header(&self) -> &ByteRecord {
        &self.header
    }

    /// Whether users have a name by which they are known again.
    pub(super) fn has_names(&self) -> bool {
        self.columns.iter().any(|column| matches!(column, Column::Id | Column::RequestId))
    }

    /// What is wrong with a cell, by its column if it has one.
    fn flaw(&self, cell: usize, problem: &str) -> Flaw {
        match self.columns.get(cell) {
            Some(column) => Flaw::of(column, problem),
            None => Flaw::whole(&format_args!("cell {}: {problem}", cell + 1)),
        }
    }

    fn wish(&self, row: &ByteRecord) -> Result<CreateUserRequest, Vec<Flaw>> {
        // A row with too few cells is told as such; it ends nothing.
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

impl<R: BufRead> Iterator for Rows<R> {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        let Record { number, cells, text, misquoted } = match self.records.next() {
            Ok(record) => record?,
            Err(error) => return Some(Err(error)),
        };
        let line = match misquoted {
            None => Line { number, wish: self.wish(&cells), raw: Raw::Cells(cells) },
            // Its cells are a guess: it is kept as it stands.
            Some((cell, problem)) => Line { number, wish: Err(vec![self.flaw(cell, &problem)]), raw: Raw::Text(text) },
        };
        Some(Ok(line))
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
        let lines = read("id,age,attributes.team,request_id\r\nada,36,ops,r1\r\nbob,,,\r\n");

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
    fn quotes_that_are_wrong_are_told_by_line_and_column_and_the_row_is_kept_as_it_stands() {
        let lines = read("id,bio\nada,\"Ada\" L.\nbob,\"Bob\ncat,Cat\n");

        let told = |line: &Line| (line.number, line.wish.as_ref().unwrap_err()[0].to_string());
        assert_eq!(told(&lines[0]), (2, "bio: text follows the quote that closes this cell".to_owned()));
        assert_eq!(told(&lines[1]), (3, "bio: a quote opens this cell and is never closed".to_owned()));
        assert!(matches!(&lines[1].raw, Raw::Text(text) if text == b"bob,\"Bob\ncat,Cat\n"), "{:?}", lines[1].raw);
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn a_first_row_with_a_quote_that_is_not_closed_is_refused() {
        let problem = Rows::open(&b"id,\"bio\nada,Ada\n"[..]).err().unwrap();

        assert!(problem.contains("cell 2: a quote opens this cell"), "{problem}");
    }
}
