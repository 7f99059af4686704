//! A line of an import, and the errors it can have.

use std::fmt;

use ::csv::ByteRecord;
use tidings_proto::user::CreateUserRequest;

/// The longest line in bytes: many times the largest user.
pub(super) const LINE_BYTES_MAX: usize = 1024 * 1024;

/// A parsed line of the file.
#[derive(Debug)]
pub(super) struct ImportLine {
    /// The line's number, counted from 1.
    pub(super) number: u64,
    /// The line as read, for the file of rejects.
    pub(super) raw: RawLine,
    /// The request that creates the user, or the line's errors.
    pub(super) request: Result<CreateUserRequest, Vec<LineError>>,
}

/// A line as read from the file.
#[derive(Debug)]
pub(super) enum RawLine {
    /// The cells of a CSV row.
    Cells(ByteRecord),
    /// The bytes of a JSON line, or of a CSV row with wrong quotes, without the line end.
    Text(Vec<u8>),
}

/// An error in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LineError {
    /// The field, `None` if the error concerns the whole line.
    pub(super) field: Option<String>,
    /// The text for the user.
    pub(super) problem: String,
}

impl LineError {
    /// Creates an error of one field.
    pub(super) fn of(field: &(impl ToString + ?Sized), problem: &(impl ToString + ?Sized)) -> Self {
        Self { field: Some(field.to_string()), problem: problem.to_string() }
    }

    /// Creates an error of the whole line.
    pub(super) fn whole(problem: &(impl ToString + ?Sized)) -> Self {
        Self { field: None, problem: problem.to_string() }
    }
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{field}: {}", self.problem),
            None => f.write_str(&self.problem),
        }
    }
}
