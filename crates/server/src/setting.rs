//! A setting of a server: the parser of its value, and the error of an invalid one.

use std::fmt;

use crate::reloadable::{FileProblem, UnusableFile};

/// An invalid setting: `--tls-cert (TIDINGS_TLS_CERT): 'server.pem': No such file or directory (os
/// error 2)`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {problem}")]
pub struct InvalidSetting {
    setting: SettingName,
    problem: String,
}

/// The flag and the environment variable of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SettingName {
    pub(crate) flag: &'static str,
    pub(crate) variable: &'static str,
}

impl InvalidSetting {
    /// Creates the error from the flag, the variable, and the problem: the value, and the expected
    /// format.
    pub fn new(flag: &'static str, variable: &'static str, problem: impl Into<String>) -> Self {
        Self { setting: SettingName { flag, variable }, problem: problem.into() }
    }
}

impl SettingName {
    /// Reports that the value is invalid.
    pub(crate) fn invalid(self, problem: String) -> InvalidSetting {
        InvalidSetting { setting: self, problem }
    }

    /// Reports that the setting is required and missing.
    pub(crate) fn missing(self, expected: &str) -> InvalidSetting {
        self.invalid(format!("not given: expected {expected}"))
    }

    /// Reports that the setting names a file that cannot be used.
    pub(crate) fn unusable(self, unusable: &UnusableFile) -> InvalidSetting {
        let expected = match &unusable.cause {
            FileProblem::Unreadable(error) => format!("expected a file that can be read: {error}"),
            malformed @ FileProblem::Malformed(_) => malformed.to_string(),
        };
        self.invalid(format!("'{}': {expected}", unusable.path.display()))
    }
}

impl fmt::Display for SettingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.flag, self.variable)
    }
}

/// Parses a duration greater than zero.
///
/// # Errors
/// The expected format.
pub fn duration(text: &str) -> Result<humantime::Duration, &'static str> {
    match text.parse::<humantime::Duration>() {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("expected a duration like 800ms or 5s"),
    }
}

/// Parses a duration; zero is allowed.
///
/// # Errors
/// The expected format.
pub fn duration_or_zero(text: &str) -> Result<humantime::Duration, &'static str> {
    text.parse().map_err(|_| "expected a duration like 0s, 800ms or 5s")
}

/// Parses a number of bytes.
///
/// # Errors
/// The expected format.
pub fn bytes(text: &str) -> Result<usize, &'static str> {
    text.parse().map_err(|_| "expected a number of bytes")
}
