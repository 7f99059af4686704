//! Failures of Postgres, classified by what a caller may conclude.

use std::io;

use crate::cause::{Cause, describe};

/// Failure of work on Postgres. The work had no effect, except possibly for [`Fault::Ambiguous`].
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A unique constraint was violated; holds its name.
    #[error("unique constraint {0} violated")]
    Unique(String),
    /// Conflict with other work (deadlock, serialization failure, lock or statement timeout): a
    /// retry may succeed.
    #[error("conflict with other work: deadlock, lock or statement timeout")]
    Retryable(#[source] sqlx::Error),
    /// No connection became free within the acquire timeout: nothing was done.
    #[error("connection pool exhausted")]
    Exhausted,
    /// Postgres is unreachable, or reports that it is starting, stopping or out of connections:
    /// nothing was done.
    #[error("postgres is unavailable")]
    Away(#[source] Cause),
    /// Postgres answers and refuses this service: password, database, permission, TLS. Nothing was
    /// done; an operator must act.
    #[error("postgres refuses this service")]
    Refused(#[source] Cause),
    /// The connection was lost during the work: the transaction **may have committed**. Retry the
    /// work with its idempotency key; read-only work can always be retried.
    #[error("connection to postgres lost; the transaction may have committed")]
    Ambiguous(#[source] Cause),
    /// Postgres is out of disk space or memory: nothing was done.
    #[error("postgres is out of disk space or memory")]
    Full(#[source] sqlx::Error),
    /// Any other error: a bug, or a database with an unexpected schema or configuration.
    #[error("unexpected error from postgres")]
    Other(#[source] sqlx::Error),
}

impl Fault {
    /// Returns the fault of work that only reads: a lost connection leaves nothing in doubt.
    pub(crate) fn of_read(self) -> Self {
        if let Self::Ambiguous(cause) = self { Self::Away(cause) } else { self }
    }

    /// Returns true if Postgres could not be used: it did not answer, before or during the work, or
    /// refuses the service.
    pub fn is_away(&self) -> bool {
        self.cause().is_some()
    }

    /// Returns the fault and its cause in one line.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Full(error) | Self::Retryable(error) | Self::Other(error) => {
                format!("{self}: {}", describe(error))
            }
            fault => match fault.cause() {
                Some(cause) => format!("{fault}: {cause}"),
                None => fault.to_string(),
            },
        }
    }

    /// Returns the cause if Postgres cannot be used at the moment.
    pub(crate) fn cause(&self) -> Option<&Cause> {
        match self {
            Self::Away(cause) | Self::Refused(cause) | Self::Ambiguous(cause) => Some(cause),
            _ => None,
        }
    }

    /// Returns true if the connection ended, with or without a message of the server, before the
    /// work had its response.
    pub(crate) fn lost_connection(&self) -> bool {
        matches!(self, Self::Away(cause) | Self::Ambiguous(cause) if !cause.is_timeout())
    }

    /// Classifies an error of work that had started. A lost connection makes its outcome ambiguous.
    pub(crate) fn of_work(error: sqlx::Error) -> Self {
        let ended = match &error {
            sqlx::Error::Database(refusal) => refusal.code().is_some_and(|code| ends_connection(&code)),
            error => is_away(error),
        };
        if ended { Self::Ambiguous(Cause::of(&error)) } else { Self::from(error) }
    }
}

/// Classifies an error that Postgres returned.
impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        if is_away(&error) {
            return Self::Away(Cause::of(&error));
        }
        match error {
            sqlx::Error::Database(ref refusal) => match refusal.code().as_deref() {
                Some("23505") => Self::Unique(refusal.constraint().unwrap_or_default().to_owned()),
                Some("53100" | "53200") => Self::Full(error), // disk_full, out_of_memory
                Some(code) if interrupts(code) => Self::Retryable(error),
                _ => Self::Other(error),
            },
            other => Self::Other(other),
        }
    }
}

/// Failure of an attempt to connect.
#[derive(Clone, Debug)]
pub(crate) enum OpenFailure {
    /// Another attempt may succeed.
    Away(Cause),
    /// An operator must act.
    Refused(Cause),
}

impl OpenFailure {
    /// Classifies an error of the driver.
    pub(crate) fn of(error: &sqlx::Error, address: &str) -> Self {
        let cause = Cause::of(error);
        match error {
            sqlx::Error::Database(refusal) => match refusal.code().as_deref() {
                // A pooler sends this code for all its errors.
                Some("08P01") if refusal.message().contains("startup parameter") => {
                    Self::Refused(Cause::new(format!("{cause}: {POOLER_CURE}")).at(address))
                }
                Some("08P01") if refusal.message().contains("no such") => Self::Refused(cause.at(address)),
                Some(code) if refuses_work(code) => Self::Away(cause.at(address)),
                _ => Self::Refused(cause.at(address)),
            },
            // rustls reports certificates that it does not accept as invalid data.
            sqlx::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => Self::Refused(cause.at(address)),
            sqlx::Error::Io(_) => Self::Away(cause.at(address)),
            _ => Self::Refused(cause.at(address)),
        }
    }

    pub(crate) fn cause(&self) -> &Cause {
        match self {
            Self::Away(cause) | Self::Refused(cause) => cause,
        }
    }
}

impl From<OpenFailure> for Fault {
    fn from(failure: OpenFailure) -> Self {
        match failure {
            OpenFailure::Away(cause) => Self::Away(cause),
            OpenFailure::Refused(cause) => Self::Refused(cause),
        }
    }
}

/// Advice for a connection through a pooler that is configured as a direct one.
pub(crate) const POOLER_CURE: &str = "a connection pooler is in between: set --postgres-pooler \
    (TIDINGS_POSTGRES_POOLER) to its mode, session or transaction";

/// Returns true if Postgres is unreachable or temporarily refuses work.
pub(crate) fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(refusal) => refusal.code().is_some_and(|code| refuses_work(&code)),
        _ => false,
    }
}

/// Returns true if an SQLSTATE reports a server that temporarily refuses work.
///
/// These are classes 08 (connection) and 58 (system error such as I/O), `too_many_connections` of
/// class 53, and of class 57 the shutdowns, the crash of another backend, a starting server, and
/// the end of an idle session; also `read_only_sql_transaction` (25006), the error of a standby.
fn refuses_work(code: &str) -> bool {
    matches!(code.get(..2), Some("08" | "58"))
        || matches!(code, "53300" | "57P01" | "57P02" | "57P03" | "57P05" | "25006")
}

/// Returns true if an SQLSTATE reports work that was interrupted and rolled back.
///
/// These are `serialization_failure`, `deadlock_detected`, `lock_not_available`, `query_canceled`
/// (of which `statement_timeout` is one), `idle_in_transaction_session_timeout` and
/// `transaction_timeout`. The last two end the connection too, always before a commit.
fn interrupts(code: &str) -> bool {
    matches!(code, "40001" | "40P01" | "55P03" | "57014" | "25P03" | "25P04")
}

/// Returns true if an SQLSTATE ends the connection, possibly between a commit and its response:
/// class 08 (connection), and of class 57 a shutdown and the crash of another backend. The end of
/// an idle session (57P05) is none of them: its server had no work.
fn ends_connection(code: &str) -> bool {
    code.starts_with("08") || matches!(code, "57P01" | "57P02")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_stops_starts_or_has_no_connection_is_away() {
        for code in ["57P01", "57P03", "53300", "08006", "58030"] {
            assert!(refuses_work(code), "{code}");
        }
        for code in ["42P01", "22021", "57014", "53100"] {
            assert!(!refuses_work(code), "{code}");
        }
    }

    /// The server rolls back, or had no work at all.
    #[test]
    fn an_interruption_by_a_timeout_of_the_session_is_no_loss() {
        for code in ["25P03", "25P04", "57014"] {
            assert!(interrupts(code) && !ends_connection(code) && !refuses_work(code), "{code}");
        }
        assert!(refuses_work("57P05") && !ends_connection("57P05"));
    }

    /// A refused statement was not executed; one without a response may have been.
    #[test]
    fn only_a_connection_lost_during_work_is_ambiguous() {
        let lost = || sqlx::Error::Io(io::ErrorKind::ConnectionReset.into());

        assert!(matches!(Fault::of_work(lost()), Fault::Ambiguous(_)));
        assert!(matches!(Fault::from(lost()), Fault::Away(_)));
        for code in ["57P01", "57P02", "08006"] {
            assert!(ends_connection(code) && refuses_work(code), "{code}");
        }
        for code in ["53300", "57P03", "58030"] {
            assert!(!ends_connection(code) && refuses_work(code), "{code}");
        }
    }
}
