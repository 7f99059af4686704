//! Encodes a gRPC status with its details.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Builder of an error status: code, reason, message for people, and details for programs.
#[derive(Debug)]
pub struct Reply {
    code: Code,
    message: String,
    reason: &'static str,
    domain: &'static str,
    metadata: HashMap<String, String>,
    details: ErrorDetails,
}

impl Reply {
    /// Starts a status. `domain` is the error domain of a contract, e.g. `user.tidings`; `reason`
    /// is the text of a value of its `ErrorReason`. `message` is sent to the caller and must not
    /// contain the words of a driver.
    pub fn new(code: Code, domain: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        debug_assert!(!reason.starts_with("ERROR_REASON_"), "{reason} is a name, not the text of a reason");
        Self { code, message: message.into(), reason, domain, metadata: HashMap::new(), details: ErrorDetails::new() }
    }

    /// Adds metadata for programs, e.g. the current version.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &impl ToString) -> Self {
        self.metadata.insert(name.to_owned(), value.to_string());
        self
    }

    /// Names the resource that is absent or taken.
    #[must_use]
    pub fn resource(mut self, kind: &'static str, name: impl Into<String>) -> Self {
        self.details.set_resource_info(kind, name, "", "");
        self
    }

    /// Names the condition that does not hold.
    #[must_use]
    pub fn precondition(mut self, subject: impl Into<String>) -> Self {
        let description = self.message.clone();
        self.details.add_precondition_failure_violation(self.reason, subject, description);
        self
    }

    /// Names the limit that was reached.
    #[must_use]
    pub fn quota(mut self, subject: &'static str) -> Self {
        let description = self.message.clone();
        self.details.add_quota_failure_violation(subject, description);
        self
    }

    /// Sets the delay before a retry.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.details.set_retry_info(Some(delay));
        self
    }

    /// Logs the cause with its chain of sources at WARN. The caller does not see it.
    #[must_use]
    pub fn logged(self, cause: &(dyn Error + 'static)) -> Self {
        let mut chain = cause.to_string();
        let mut source = cause.source();
        while let Some(error) = source {
            chain.push_str(": ");
            chain.push_str(&error.to_string());
            source = error.source();
        }
        tracing::warn!(reason = self.reason, cause = chain, "{}", self.message);
        self
    }

    /// Builds the status.
    pub fn into_status(mut self) -> Status {
        self.details.set_error_info(self.reason, self.domain, self.metadata);
        Status::with_error_details(self.code, self.message, self.details)
    }
}
