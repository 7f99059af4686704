//! Validates the fields of a request. Includes the rules that all contracts share.

mod fold;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::ops::RangeInclusive;

use tidings_proto::lock::ErrorReason; // a test compares INVALID_FIELDS with the other contracts
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Longest id in bytes.
const ID_MAX: usize = 64;
/// Longest name of a lock or channel in bytes.
const NAME_MAX: usize = 200;
/// Most attributes of one object.
const ATTRIBUTES_MAX: usize = 32;
/// Most bytes of all names and values of attributes together.
const ATTRIBUTES_BYTES_MAX: usize = 4096;
/// Longest name of an attribute in bytes.
const ATTRIBUTE_NAME_MAX: usize = 64;

/// Most bytes of field names and descriptions in the details of a status. The details travel
/// base64-encoded in a header, and some clients accept 8 KiB of headers in all.
const DETAILS_MAX: usize = 4096;
/// Most bytes of field names and descriptions that the message repeats.
const MESSAGE_MAX: usize = 512;

/// One malformed field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field in the request, e.g. `requests[3].body`.
    pub field: String,
    /// Expectation that the value violates.
    pub description: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.description)
    }
}

/// All malformed fields of a request; converts into INVALID_ARGUMENT `INVALID_FIELDS`.
#[derive(Debug)]
pub struct Invalid {
    domain: &'static str,
    violations: Vec<Violation>,
}

impl Invalid {
    /// Returns the malformed fields, at least one.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }
}

impl From<Invalid> for Status {
    /// Groups list items with the same violation, e.g. `ids[0,3,7-499]`. Truncates details that
    /// would exceed the headers that clients accept, and states the number of omitted fields.
    fn from(invalid: Invalid) -> Self {
        let violations = fold::fold(invalid.violations);
        let mut details = ErrorDetails::new();
        let mut message = String::from("malformed request");
        let mut bytes = 0;
        for (index, violation) in violations.iter().enumerate() {
            bytes += violation.field.len() + violation.description.len();
            if bytes > DETAILS_MAX {
                details.add_bad_request_violation("", format!("and {} more fields", violations.len() - index));
                break;
            }
            if bytes <= MESSAGE_MAX {
                let _ = write!(message, "{} {violation}", if index == 0 { ":" } else { ";" });
            }
            details.add_bad_request_violation(&violation.field, &violation.description);
        }
        details.set_error_info(ErrorReason::InvalidFields.text(), invalid.domain, []);
        Status::with_error_details(Code::InvalidArgument, message, details)
    }
}

/// Collects all violations of a request, to report them at once.
#[derive(Debug)]
pub struct Fields {
    domain: &'static str,
    prefix: String,
    violations: Vec<Violation>,
}

impl Fields {
    /// Starts the validation of one request. `domain` is the error domain of the service.
    pub fn new(domain: &'static str) -> Self {
        Self { domain, prefix: String::new(), violations: Vec::new() }
    }

    /// Ends the validation.
    ///
    /// # Errors
    /// [`Invalid`] if any field was refused.
    pub fn finish(self) -> Result<(), Invalid> {
        if self.violations.is_empty() {
            return Ok(());
        }
        Err(Invalid { domain: self.domain, violations: self.violations })
    }

    /// Validates fields of a message nested in the request, e.g. `user` or `requests[3]`.
    pub fn within<T>(&mut self, path: impl fmt::Display, check: impl FnOnce(&mut Self) -> T) -> T {
        let outer = self.prefix.len();
        let _ = write!(self.prefix, "{path}.");
        let checked = check(self);
        self.prefix.truncate(outer);
        checked
    }

    /// Quotes a value of the caller for a description, truncated to 64 characters.
    pub fn quoted(value: &str) -> String {
        const QUOTED_MAX: usize = 64;
        match value.char_indices().nth(QUOTED_MAX) {
            Some((end, _)) => format!("{:?}...", &value[..end]),
            None => format!("{value:?}"),
        }
    }

    /// Refuses a field; `description` states the expectation.
    pub fn refuse(&mut self, field: impl fmt::Display, description: impl Into<String>) {
        self.violations.push(Violation { field: format!("{}{field}", self.prefix), description: description.into() });
    }

    /// Refuses the field unless `holds`.
    pub fn require(&mut self, field: impl fmt::Display, holds: bool, description: impl Into<String>) {
        if !holds {
            self.refuse(field, description);
        }
    }

    /// Expects an id: 1 to 64 of `[A-Za-z0-9._~-]`.
    pub fn id(&mut self, field: impl fmt::Display, value: &str) {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
        self.require(
            field,
            (1..=ID_MAX).contains(&value.len()) && value.bytes().all(legal),
            "expected 1 to 64 of [A-Za-z0-9._~-]",
        );
    }

    /// Expects an id or an empty string.
    pub fn optional_id(&mut self, field: impl fmt::Display, value: &str) {
        if !value.is_empty() {
            self.id(field, value);
        }
    }

    /// Expects the name of a lock or a channel: 1 to 200 of `[A-Za-z0-9._~/-]`, no empty segment.
    pub fn name(&mut self, field: impl fmt::Display, value: &str) {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._~/-".contains(&byte);
        self.require(
            field,
            (1..=NAME_MAX).contains(&value.len())
                && value.bytes().all(legal)
                && value.split('/').all(|segment| !segment.is_empty()),
            "expected 1 to 200 of [A-Za-z0-9._~/-] without an empty segment",
        );
    }

    /// Expects a text of at most `max` bytes without NUL, which Postgres cannot store.
    pub fn text(&mut self, field: impl fmt::Display, value: &str, max: usize) {
        if value.len() > max {
            self.refuse(field, format!("expected at most {max} bytes, got {}", value.len()));
        } else if value.contains('\0') {
            self.refuse(field, "expected no NUL character");
        }
    }

    /// Expects a number within a range.
    pub fn within_range<T: PartialOrd + fmt::Display>(
        &mut self,
        field: impl fmt::Display,
        value: &T,
        range: &RangeInclusive<T>,
    ) {
        if !range.contains(value) {
            let description = format!("expected {} to {}, got {value}", range.start(), range.end());
            self.refuse(field, description);
        }
    }

    /// Expects a number that is not negative, such as a version or a seq.
    pub fn not_negative(&mut self, field: impl fmt::Display, value: i64) {
        self.require(field, value >= 0, "expected 0 or more");
    }

    /// Expects attributes: at most 32 entries, 4,096 bytes together, names of 1 to 64 bytes, no
    /// NUL.
    pub fn attributes(&mut self, field: &str, attributes: &BTreeMap<String, String>) {
        if attributes.len() > ATTRIBUTES_MAX {
            let description = format!("expected at most {ATTRIBUTES_MAX} entries, got {}", attributes.len());
            self.refuse(field, description);
        }
        let bytes: usize = attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > ATTRIBUTES_BYTES_MAX {
            let description = format!("expected at most {ATTRIBUTES_BYTES_MAX} bytes together, got {bytes}");
            self.refuse(field, description);
        }
        if attributes.keys().any(|name| !(1..=ATTRIBUTE_NAME_MAX).contains(&name.len())) {
            self.refuse(field, format!("expected names of 1 to {ATTRIBUTE_NAME_MAX} bytes"));
        }
        if attributes.iter().any(|(name, value)| name.contains('\0') || value.contains('\0')) {
            self.refuse(field, "expected no NUL character");
        }
    }
}

#[cfg(test)]
mod tests {
    use tidings_proto::{broadcast, history, user};

    use super::*;

    #[test]
    fn every_contract_has_the_reason_of_malformed_fields() {
        let texts = [
            user::ErrorReason::InvalidFields.text(),
            history::ErrorReason::InvalidFields.text(),
            broadcast::ErrorReason::InvalidFields.text(),
        ];
        assert_eq!(texts, [ErrorReason::InvalidFields.text(); 3]);
    }
}
