//! Failures of Postgres, classified by what a caller may conclude.

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
    Away(#[source] Option<sqlx::Error>),
    /// The connection was lost during the work: the transaction **may have committed**. Retry the
    /// work with its idempotency key; read-only work can always be retried.
    #[error("connection to postgres lost; the transaction may have committed")]
    Ambiguous(#[source] Option<sqlx::Error>),
    /// Postgres is out of disk space or memory: nothing was done.
    #[error("postgres is out of disk space or memory")]
    Full(#[source] sqlx::Error),
    /// Any other error: a bug, or a database with an unexpected schema or configuration.
    #[error("unexpected error from postgres")]
    Other(#[source] sqlx::Error),
}

impl Fault {
    /// Returns true if Postgres did not answer, before or during the work.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Away(_) | Self::Ambiguous(_))
    }

    /// Classifies an error of work that had started. A lost connection makes its outcome ambiguous.
    pub(crate) fn of_work(error: sqlx::Error) -> Self {
        let ended = match &error {
            sqlx::Error::Database(refusal) => refusal.code().is_some_and(|code| ends_connection(&code)),
            error => is_away(error),
        };
        if ended { Self::Ambiguous(Some(error)) } else { Self::from(error) }
    }
}

/// Classifies an error of a connection attempt, or one that Postgres returned.
impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolTimedOut => Self::Exhausted,
            error if is_away(&error) => Self::Away(Some(error)),
            sqlx::Error::Database(ref refusal) => match refusal.code().as_deref() {
                Some("23505") => Self::Unique(refusal.constraint().unwrap_or_default().to_owned()),
                Some("53100" | "53200") => Self::Full(error), // disk_full, out_of_memory
                // serialization_failure, deadlock_detected, lock_not_available, query_canceled
                // (statement_timeout)
                Some("40001" | "40P01" | "55P03" | "57014") => Self::Retryable(error),
                _ => Self::Other(error),
            },
            other => Self::Other(other),
        }
    }
}

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
/// class 53, and of class 57 the shutdowns, the crash of another backend, and a starting server;
/// also `read_only_sql_transaction` (25006), the error of a standby.
fn refuses_work(code: &str) -> bool {
    matches!(code.get(..2), Some("08" | "58"))
        || matches!(code, "53300" | "57P01" | "57P02" | "57P03" | "57P05" | "25006")
}

/// Returns true if an SQLSTATE ends the connection, possibly between a commit and its response:
/// class 08 (connection), and of class 57 a shutdown and the crash of another backend.
fn ends_connection(code: &str) -> bool {
    code.starts_with("08") || matches!(code, "57P01" | "57P02" | "57P05")
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

    /// A refused statement was not executed; one without a response may have been.
    #[test]
    fn only_a_connection_lost_during_work_is_ambiguous() {
        let lost = || sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());

        assert!(matches!(Fault::of_work(lost()), Fault::Ambiguous(Some(_))));
        assert!(matches!(Fault::from(lost()), Fault::Away(Some(_))));
        for code in ["57P01", "57P02", "08006"] {
            assert!(ends_connection(code) && refuses_work(code), "{code}");
        }
        for code in ["53300", "57P03", "58030"] {
            assert!(!ends_connection(code) && refuses_work(code), "{code}");
        }
    }
}
