//! Decodes a gRPC status with its details.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::fields::Violation;

/// A decoded status, for programs and for people.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Status code of the call.
    pub code: Code,
    /// Message for people; may change between releases.
    pub message: String,
    /// `ErrorInfo.reason`; empty if the status carries none, e.g. because a proxy sent it.
    pub reason: String,
    /// `ErrorInfo.domain`, e.g. `user.tidings`; empty if `reason` is.
    pub domain: String,
    /// `ErrorInfo.metadata`: values for programs, e.g. `version`.
    pub metadata: BTreeMap<String, String>,
    /// Delay before a retry, if the status has a `RetryInfo`.
    pub retry_after: Option<Duration>,
    /// Malformed fields of the request, from `BadRequest`.
    pub violations: Vec<Violation>,
    /// Id of the call in the log of the server.
    pub request_id: Option<String>,
}

impl From<&Status> for Failure {
    fn from(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().cloned();
        let (reason, domain, metadata) =
            info.map_or_else(Default::default, |info| (info.reason, info.domain, info.metadata.into_iter().collect()));
        let violations = details.bad_request().map_or_else(Vec::new, |bad| {
            bad.field_violations
                .iter()
                .map(|violation| Violation {
                    field: violation.field.clone(),
                    description: violation.description.clone(),
                })
                .collect()
        });
        Self {
            code: status.code(),
            message: status.message().to_owned(),
            reason,
            domain,
            metadata,
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            violations,
            request_id: details.request_info().map(|info| info.request_id.clone()),
        }
    }
}

impl fmt::Display for Failure {
    /// Writes e.g. `NOT_FOUND USER_NOT_FOUND: there is no user ada`, then one line per detail.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(code_name(self.code))?;
        if !self.reason.is_empty() {
            write!(f, " {}", self.reason)?;
        }
        write!(f, ": {}", self.message)?;
        for (name, value) in &self.metadata {
            write!(f, "\n  {name} = {value}")?;
        }
        for violation in &self.violations {
            write!(f, "\n  {violation}")?;
        }
        if let Some(delay) = self.retry_after {
            write!(f, "\n  try again after {delay:?}")?;
        }
        if let Some(id) = &self.request_id {
            write!(f, "\n  request id {id}")?;
        }
        Ok(())
    }
}

/// Returns the name of a code as in the gRPC specification, e.g. `NOT_FOUND`.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::Fields;
    use crate::reply::Reply;

    #[test]
    fn a_failure_decodes_what_a_reply_encodes() {
        let status = Reply::new(Code::Unavailable, "test.tidings", "STORE_AWAY", "the store does not answer")
            .with("version", &7)
            .retry_after(Duration::from_millis(250))
            .into_status();

        let failure = Failure::from(&status);

        assert_eq!(failure.code, Code::Unavailable);
        assert_eq!((failure.reason.as_str(), failure.domain.as_str()), ("STORE_AWAY", "test.tidings"));
        assert_eq!(failure.metadata["version"], "7");
        assert_eq!(failure.retry_after, Some(Duration::from_millis(250)));
        assert!(failure.to_string().starts_with("UNAVAILABLE STORE_AWAY: the store does not answer"));
    }

    #[test]
    fn all_malformed_fields_are_named_at_once() {
        let mut fields = Fields::new("test.tidings");
        fields.id("id", "no spaces");
        fields.within("items[1]", |fields| fields.text("title", "a\0b", 10));
        let status = Status::from(fields.finish().unwrap_err());

        let failure = Failure::from(&status);

        let named: Vec<_> = failure.violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(named, ["id", "items[1].title"]);
        assert_eq!(failure.reason, "INVALID_FIELDS");
    }

    /// Some clients accept 8 KiB of headers in all.
    #[test]
    fn a_status_with_many_malformed_fields_fits_the_headers() {
        let mut fields = Fields::new("test.tidings");
        for item in 0..500 {
            fields.within(format_args!("requests[{item}]"), |fields| {
                fields.id("id", "no spaces");
                fields.refuse(format_args!("path{item}"), format!("got {}", Fields::quoted(&"x".repeat(100_000))));
            });
        }
        let status = Status::from(fields.finish().unwrap_err());

        assert!(status.message().len() < 1024, "{}", status.message().len());
        assert!(status.details().len() < 6 * 1024, "{}", status.details().len());
        let violations = Failure::from(&status).violations;
        assert_eq!(violations[0].field, "requests[0-499].id");
        assert!(violations.last().unwrap().description.contains("more fields"));
    }

    #[test]
    fn a_status_without_details_keeps_code_and_message() {
        let failure = Failure::from(&Status::unknown("transport error"));

        assert_eq!(failure.to_string(), "UNKNOWN: transport error");
    }
}
