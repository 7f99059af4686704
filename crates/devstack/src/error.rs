//! What can go wrong, each in one line that says what to do.

use std::io;
use std::path::{Path, PathBuf};

/// Why a stack, one of its servers or one of its databases is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program was found nowhere.
    #[error("{program} is not installed: {install}")]
    Missing {
        /// The name of the program.
        program: &'static str,
        /// How to install it.
        install: &'static str,
    },
    /// A program is older than the suite needs.
    #[error("{} is {found}, {needed} or newer is needed: {install}", program.display())]
    TooOld {
        /// Where the program is.
        program: PathBuf,
        /// The version it gave.
        found: String,
        /// The oldest version that will do.
        needed: &'static str,
        /// How to install it.
        install: &'static str,
    },
    /// Root found no user to run the servers as.
    #[error("the servers cannot run as root and there is no user postgres or nobody: create one")]
    NoAccount,
    /// Another living process owns the directory.
    #[error("{} is in use by another tidings (pid {pid}): stop it or choose another directory", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The owner, as it wrote itself down.
        pid: String,
    },
    /// The owner of the directory is gone, but not its servers.
    #[error("the servers of an earlier tidings in {} do not end: kill them and try again", dir.display())]
    Lingering {
        /// The directory.
        dir: PathBuf,
    },
    /// A server, or the making of its data, ended instead of answering.
    #[error("{server} ended at its start: {reason}")]
    Ended {
        /// Which one.
        server: &'static str,
        /// Its last words, or what can be said without any.
        reason: String,
    },
    /// A server runs but does not answer.
    #[error("{server} does not answer after {seconds} s: read {}", log.display())]
    Silent {
        /// Which one.
        server: &'static str,
        /// How long it was waited for.
        seconds: u64,
        /// Where it writes.
        log: PathBuf,
    },
    /// A file, directory or process could not be made, moved or removed.
    #[error("cannot {what}: {cause}")]
    System {
        /// What was tried, with the path.
        what: String,
        /// The system's answer.
        cause: io::Error,
    },
    /// Postgres refused something.
    #[error("cannot {what}: {cause}")]
    Sql {
        /// What was tried, with the database.
        what: String,
        /// The driver's answer.
        cause: sqlx::Error,
    },
    /// Migrations could not be read or applied.
    #[error("cannot migrate {database}: {cause}")]
    Migrate {
        /// The database.
        database: String,
        /// The migrator's answer.
        cause: sqlx::migrate::MigrateError,
    },
}

impl Error {
    /// Words a failure of the system: `verb` as in "create", done to `path`.
    pub(crate) fn system(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{verb} {}", path.display());
        |cause| Self::System { what, cause }
    }

    /// Words a refusal by Postgres.
    pub(crate) fn sql(what: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Self {
        let what = what.into();
        |cause| Self::Sql { what, cause }
    }
}
