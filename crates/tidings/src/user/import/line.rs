//! A line of an import, and what can be wrong with it.

use std::fmt;

use ::csv::ByteRecord;
use tidings_proto::user::CreateUserRequest;

/// The longest line: many times the largest user.
pub(super) const LONGEST: usize = 1024 * 1024;

/// A line of the file.
#[derive(Debug)]
pub(super) struct Line {
    /// Its number, counted from 1.
    pub(super) number: u64,
    /// As it stands in the file, for those who will correct it.
    pub(super) raw: Raw,
    /// What it asks for, or why it asks for nothing.
    pub(super) wish: Result<CreateUserRequest, Vec<Flaw>>,
}

/// A line as it stands in the file.
#[derive(Debug)]
pub(super) enum Raw {
    /// Of CSV.
    Cells(ByteRecord),
    /// Of JSON Lines, without its end.
    Text(Vec<u8>),
}

/// One thing that is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    /// The field, if it is that of one.
    pub(super) field: Option<String>,
    /// What is wrong.
    pub(super) problem: String,
}

impl Flaw {
    /// Something is wrong with a field.
    pub(super) fn of(field: &(impl ToString + ?Sized), problem: &(impl ToString + ?Sized)) -> Self {
        Self { field: Some(field.to_string()), problem: problem.to_string() }
    }

    /// Something is wrong with all of it.
    pub(super) fn whole(problem: &(impl ToString + ?Sized)) -> Self {
        Self { field: None, problem: problem.to_string() }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{field}: {}", self.problem),
            None => f.write_str(&self.problem),
        }
    }
}
