//! What must be before a service begins to use Postgres: that it lets us in, and is not too old.

use sqlx::PgConnection;

use crate::Fault;

/// The oldest Postgres we know to work.
const OLDEST: u32 = 150_000;

/// Why a service can not begin to use Postgres.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Nobody answered, or refused us.
    #[error("can not use postgres at {0}")]
    Connect(String, #[source] Fault),
    /// It is too old.
    #[error("found postgres {found} at {place}, need 15 or newer")]
    Version {
        /// Where.
        place: String,
        /// What it says it is.
        found: String,
    },
}

impl StartError {
    /// Whether it is for Postgres to come back, rather than for people to mend something.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Connect(_, fault) if fault.is_away())
    }
}

/// Checks what the server at `place` said of itself when it let us in.
pub(crate) fn check_version(connection: &PgConnection, place: &str) -> Result<(), StartError> {
    match connection.server_version_num() {
        Some(version) if version < OLDEST => {
            let found = format!("{}.{}", version / 10_000, version % 10_000);
            Err(StartError::Version { place: place.to_owned(), found })
        }
        // One that does not say is no Postgres, but something that answers like one.
        Some(_) | None => Ok(()),
    }
}
