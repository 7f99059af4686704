//! Cause of a failed or lost connection in words, for calls, log, probes and doctor.

use std::error::Error;
use std::fmt;
use std::io;
use std::iter;
use std::sync::Arc;

/// Cause of a failed or lost connection, e.g. `10.0.0.1:5432: Connection refused`. It never holds a
/// password.
#[derive(Clone, Debug)]
pub struct Cause {
    text: Arc<str>,
    is_timeout: bool,
}

impl Cause {
    /// Creates a cause from its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into().into(), is_timeout: false }
    }

    /// Creates the cause of a limit that passed without a response.
    pub(crate) fn timeout(text: impl Into<String>) -> Self {
        Self { is_timeout: true, ..Self::new(text) }
    }

    /// Creates the cause that an error of the driver reports.
    pub(crate) fn of(error: &sqlx::Error) -> Self {
        let is_timeout = matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut);
        Self { is_timeout, ..Self::new(describe(error)) }
    }

    /// Puts the address in front of the cause.
    pub(crate) fn at(self, address: &str) -> Self {
        Self { text: format!("{address}: {}", self.text).into(), ..self }
    }

    /// Returns true if Postgres sent nothing within a limit: it may be slow, or the network may
    /// drop packets.
    pub fn is_timeout(&self) -> bool {
        self.is_timeout
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Cause {}

/// Describes an error of the driver in one line, with the SQLSTATE if Postgres sent one.
pub(crate) fn describe(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Io(error) => chain(error),
        sqlx::Error::Database(refusal) => match refusal.code() {
            Some(code) => format!("{} ({code})", refusal.message()),
            None => refusal.message().to_owned(),
        },
        error => chain(error),
    }
}

/// Formats an error and its sources in one line, without a source that repeats its error.
fn chain(error: &dyn Error) -> String {
    let sources = iter::successors(Some(error), |&error| error.source());
    let mut line = String::new();
    for text in sources.map(ToString::to_string) {
        if !line.ends_with(&text) {
            line = if line.is_empty() { text } else { format!("{line}: {text}") };
        }
    }
    line
}
