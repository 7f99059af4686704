//! What can go wrong with Postgres, told apart by what a caller can do about it.

/// Why work on Postgres failed. Transactions that failed left nothing behind, but for [`Fault::Away`].
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
    /// Postgres does not answer. A commit that was under way **may have been done**: repeat the work under its key.
    #[error("postgres does not answer")]
    Away(#[source] Option<sqlx::Error>),
    /// Anything else: a bug, or a database that is not as it should be.
    #[error("unexpected answer from postgres")]
    Other(#[source] sqlx::Error),
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolTimedOut => Self::Exhausted,
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                Self::Away(Some(error))
            }
            sqlx::Error::Database(ref refusal) => match refusal.code().as_deref() {
                Some("23505") => Self::Unique(refusal.constraint().unwrap_or_default().to_owned()),
                // serialization_failure, deadlock_detected, lock_not_available, query_canceled (statement_timeout)
                Some("40001" | "40P01" | "55P03" | "57014") => Self::Retryable(error),
                Some(code) if is_away(code) => Self::Away(Some(error)),
                _ => Self::Other(error),
            },
            other => Self::Other(other),
        }
    }
}

/// Whether an SQLSTATE says that the server can not work just now, rather than that the work is wrong.
///
/// Classes 08 (connection), 53 (out of disk, memory, connections), 58 (system error: I/O), and of class 57 the
/// shutdowns, crash of another backend, and a server that is starting.
fn is_away(code: &str) -> bool {
    matches!(code.get(..2), Some("08" | "53" | "58")) || matches!(code, "57P01" | "57P02" | "57P03" | "57P05" | "25006")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_stops_starts_or_has_no_room_is_away() {
        for code in ["57P01", "57P03", "53100", "53300", "08006", "58030"] {
            assert!(is_away(code), "{code}");
        }
        for code in ["42P01", "22021", "57014"] {
            assert!(!is_away(code), "{code}");
        }
    }
}
