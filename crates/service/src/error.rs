//! Errors that prevent a service from starting, or end it.

use std::error::Error;
use std::io;
use std::iter;
use std::net::SocketAddr;

use tidings_server::InvalidSetting;
use tokio::task::JoinError;

/// Errors that prevent a service from starting, or end it.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A setting is invalid.
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    /// The address cannot be bound.
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    /// The schema is not up to date, or a migration failed.
    #[error(transparent)]
    Migrate(#[from] tidings_postgres::MigrateError),
    /// Postgres cannot be used.
    #[error(transparent)]
    Postgres(#[from] tidings_postgres::StartError),
    /// The URL of Redis is invalid, or the file of its CA.
    #[error("cannot use redis")]
    Redis(#[source] tidings_redis::OpenError),
    /// The Redis server cannot be used, and no wait helps.
    #[error("cannot use this redis")]
    Unusable(#[source] tidings_redis::Unusable),
    /// A background task panicked.
    #[error("background task {0} ended unexpectedly")]
    Task(&'static str, #[source] JoinError),
    /// The signal handlers cannot be installed.
    #[error("cannot handle signals")]
    Signal(#[source] io::Error),
    /// The server did not start.
    #[error("cannot serve")]
    Server(#[from] tidings_server::Error),
}

/// Formats an error and its sources in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let sources = iter::successors(Some(error), |&error| error.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot bind 127.0.0.1:7401")]
    struct Bind(#[source] io::Error);

    #[test]
    fn an_error_and_its_cause_are_one_line() {
        let error = Bind(io::Error::other("address in use"));

        assert_eq!(super::chain(&error), "cannot bind 127.0.0.1:7401: address in use");
    }
}
