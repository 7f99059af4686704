//! What can go wrong with Postgres, told apart by what a caller can do about it.

/// Why work on Postgres failed. It left nothing behind, but for [`Fault::Ambiguous`].
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A unique constraint stands against it; its name.
    #[error("unique constraint {0} violated")]
    Unique(String),
    /// It collided with other work (deadlock, serialization, lock or statement timeout): the same again may succeed.
    #[error("collided with other work")]
    Retryable(#[source] sqlx::Error),
    /// All connections were busy for as long as one may wait: nothing was done.
    #[error("no connection became free")]
    Exhausted,
    /// Postgres can not be asked, or says that it can not work just now: nothing was done.
    #[error("postgres does not answer")]
    Away(#[source] Option<sqlx::Error>),
    /// Postgres fell silent in the middle of the work: what it was to commit **may have been done**. Repeat the work under
    /// its key, which finds what was; work that only reads can be repeated anyway.
    #[error("postgres fell silent in the middle of the work, which may have been done")]
    Ambiguous(#[source] Option<sqlx::Error>),
    /// Postgres has no room for it, on disk or in memory: nothing was done.
    #[error("postgres has no room")]
    Full(#[source] sqlx::Error),
    /// Anything else: a bug, or a database that is not as it should be.
    #[error("unexpected answer from postgres")]
    Other(#[source] sqlx::Error),
}

impl Fault {
    /// Whether Postgres does not answer, before the work or in the middle of it.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Away(_) | Self::Ambiguous(_))
    }

    /// What became of work that had begun. Like the others, but a connection that ended under it took the answer along.
    pub(crate) fn of_work(error: sqlx::Error) -> Self {
        let ended = match &error {
            sqlx::Error::Database(refusal) => refusal.code().is_some_and(|code| says_end(&code)),
            error => is_away(error),
        };
        if ended { Self::Ambiguous(Some(error)) } else { Self::from(error) }
    }
}

/// Why there is no connection, or what Postgres answered.
impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolTimedOut => Self::Exhausted,
            error if is_away(&error) => Self::Away(Some(error)),
            sqlx::Error::Database(ref refusal) => match refusal.code().as_deref() {
                Some("23505") => Self::Unique(refusal.constraint().unwrap_or_default().to_owned()),
                Some("53100" | "53200") => Self::Full(error), // disk_full, out_of_memory
                // serialization_failure, deadlock_detected, lock_not_available, query_canceled (statement_timeout)
                Some("40001" | "40P01" | "55P03" | "57014") => Self::Retryable(error),
                _ => Self::Other(error),
            },
            other => Self::Other(other),
        }
    }
}

/// Whether an error says that Postgres does not answer, or can not work just now.
pub(crate) fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(refusal) => refusal.code().is_some_and(|code| says_away(&code)),
        _ => false,
    }
}

/// Whether an SQLSTATE says that the server can not work just now, rather than that the work is wrong.
///
/// Classes 08 (connection) and 58 (system error: I/O), of class 53 that it has no connection for us, and of class 57 the
/// shutdowns, crash of another backend, and a server that is starting.
fn says_away(code: &str) -> bool {
    matches!(code.get(..2), Some("08" | "58"))
        || matches!(code, "53300" | "57P01" | "57P02" | "57P03" | "57P05" | "25006")
}

/// Whether an SQLSTATE is the last word of a backend, which may come between a commit and its answer: of class 57 a shutdown
/// and the crash of another backend, and all of class 08 (connection).
fn says_end(code: &str) -> bool {
    code.starts_with("08") || matches!(code, "57P01" | "57P02" | "57P05")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_stops_starts_or_has_no_connection_is_away() {
        for code in ["57P01", "57P03", "53300", "08006", "58030"] {
            assert!(says_away(code), "{code}");
        }
        for code in ["42P01", "22021", "57014", "53100"] {
            assert!(!says_away(code), "{code}");
        }
    }

    #[test]
    fn what_a_lost_connection_was_to_commit_may_have_been_done_and_what_was_refused_was_not() {
        let lost = || sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());

        assert!(matches!(Fault::of_work(lost()), Fault::Ambiguous(Some(_))));
        assert!(matches!(Fault::from(lost()), Fault::Away(Some(_))));
        for code in ["57P01", "57P02", "08006"] {
            assert!(says_end(code) && says_away(code), "{code}");
        }
        for code in ["53300", "57P03", "58030"] {
            assert!(!says_end(code) && says_away(code), "{code}");
        }
    }
}
