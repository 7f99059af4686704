//! Conditions for the use of a Postgres server: it accepts the connection, and its version is
//! supported.

use sqlx::PgConnection;

use crate::fault::Fault;

/// Oldest supported version.
const OLDEST: u32 = 150_000;

/// Reason why a service cannot use Postgres.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The server is unreachable or refused the connection.
    #[error("cannot connect to postgres at {0}")]
    Connect(String, #[source] Fault),
    /// The server is too old.
    #[error("found postgres {found} at {address}, need 15 or newer")]
    Version {
        /// Address of the server.
        address: String,
        /// Version that the server reports.
        found: String,
    },
}

impl StartError {
    /// Returns true if waiting may help, because Postgres is unavailable; false if an operator must
    /// act.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Connect(_, fault) if fault.is_away())
    }
}

/// Checks the version that the server reported when it accepted the connection.
pub(crate) fn check_version(connection: &PgConnection, address: &str) -> Result<(), StartError> {
    match connection.server_version_num() {
        Some(version) if version < OLDEST => {
            let found = format!("{}.{}", version / 10_000, version % 10_000);
            Err(StartError::Version { address: address.to_owned(), found })
        }
        // A server that reports no version is a compatible product, not Postgres itself.
        Some(_) | None => Ok(()),
    }
}
