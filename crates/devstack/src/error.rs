//! Errors of a stack; each message is one line and names the remedy.

use std::io;
use std::path::{Path, PathBuf};

/// Error of a stack, one of its servers or one of its databases.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program is not installed.
    #[error("{program} is not installed: {install}")]
    Missing {
        /// Name of the program.
        program: &'static str,
        /// Commands that install it.
        install: &'static str,
    },
    /// A program is too old.
    #[error("{} is {found}, {needed} or newer is required: {install}", program.display())]
    TooOld {
        /// Path of the program.
        program: PathBuf,
        /// Version line that it printed.
        found: String,
        /// Oldest supported version, e.g. `Postgres 15`.
        needed: &'static str,
        /// Commands that install a newer one.
        install: &'static str,
    },
    /// This process is root, and there is no user to run the servers as.
    #[error("the servers cannot run as root and there is no user postgres or nobody: create one")]
    NoAccount,
    /// Another running process owns the directory.
    #[error("{} is in use by another tidings (pid {pid}): stop it or choose another directory", dir.display())]
    InUse {
        /// Directory of the stack.
        dir: PathBuf,
        /// Process id of the owner, as recorded in the directory.
        pid: String,
    },
    /// The directory has data that no stack has made.
    #[error("{} was not made by tidings: move it away or choose another directory", data.display())]
    Foreign {
        /// Path of the data.
        data: PathBuf,
    },
    /// The owner of the directory ended, but its servers did not.
    #[error("servers of an earlier tidings are still running in {}: kill them and try again", dir.display())]
    Lingering {
        /// Directory of the stack.
        dir: PathBuf,
    },
    /// A server or `initdb` ended before it was ready.
    #[error("{server} failed to start: {reason}")]
    StartFailed {
        /// Name of the program: `postgres`, `redis` or `initdb`.
        server: &'static str,
        /// Cause from its log, or else its exit status.
        reason: String,
    },
    /// A server runs but is not ready.
    #[error("{server} is not ready after {seconds} s: see {}", log.display())]
    NotReady {
        /// Name of the server: `postgres` or `redis`.
        server: &'static str,
        /// Time waited, in seconds.
        seconds: u64,
        /// Path of its log.
        log: PathBuf,
    },
    /// An operation on a file, directory or process failed.
    #[error("cannot {what}: {cause}")]
    System {
        /// Operation with the path, e.g. `create /data`.
        what: String,
        /// Error of the system.
        cause: io::Error,
    },
    /// A statement failed at Postgres.
    #[error("cannot {what}: {cause}")]
    Sql {
        /// Operation with the database, e.g. `create database note`.
        what: String,
        /// Error of the driver.
        cause: sqlx::Error,
    },
    /// Migrations could not be read or applied.
    #[error("cannot migrate {database}: {cause}")]
    Migrate {
        /// Name of the database.
        database: String,
        /// Error of the migrator.
        cause: sqlx::migrate::MigrateError,
    },
}

impl Error {
    /// Returns a constructor of [`Error::System`] for an operation such as "create" on `path`.
    pub(crate) fn system(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{verb} {}", path.display());
        |cause| Self::System { what, cause }
    }

    /// Returns a constructor of [`Error::Sql`] for an operation such as "create database note".
    pub(crate) fn sql(what: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Self {
        let what = what.into();
        |cause| Self::Sql { what, cause }
    }
}
