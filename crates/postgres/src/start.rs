//! Conditions for the use of a Postgres server: it accepts the connection, its version and encoding
//! are supported, it can be written to, and it applies the settings of the session.

use sqlx::{Connection as _, PgConnection, Row as _};

use crate::connector::Connector;
use crate::fault::{Fault, POOLER_CURE};

/// Oldest supported version.
const OLDEST: u32 = 150_000;
/// Reason why a standby, or a server with `default_transaction_read_only`, cannot be used.
pub(crate) const READ_ONLY: &str = "postgres is read-only: a standby, or default_transaction_read_only is on";
/// Facts about a session, in one row.
const FACTS: &str = "SELECT current_setting('server_encoding') AS encoding, \
    pg_is_in_recovery() OR current_setting('transaction_read_only')::bool AS read_only, \
    (SELECT setting FROM pg_settings WHERE name = 'statement_timeout') AS statement_timeout, \
    coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS encrypted";

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
    /// The database cannot store all texts.
    #[error("encoding {found} of {address}: create the database with ENCODING 'UTF8'")]
    Encoding {
        /// Address of the database.
        address: String,
        /// Encoding of the database.
        found: String,
    },
    /// The server cannot be written to. It may become the primary.
    #[error("cannot write at {0}: {READ_ONLY}")]
    ReadOnly(String),
    /// The settings of the session have no effect.
    #[error("settings of a session do not hold at {0}: {POOLER_CURE}")]
    Pooler(String),
}

impl StartError {
    /// Returns true if waiting may help, because Postgres is unavailable; false if an operator must
    /// act.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Connect(_, fault) => fault.is_away() && !matches!(fault, Fault::Refused(_)),
            Self::ReadOnly(_) => true,
            Self::Version { .. } | Self::Encoding { .. } | Self::Pooler(_) => false,
        }
    }

    /// Returns the error and its cause in one line.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Connect(_, fault) => format!("{self}: {}", fault.describe()),
            error => error.to_string(),
        }
    }
}

/// A server that can be used.
pub(crate) struct CheckedServer {
    pub(crate) connection: PgConnection,
    /// True if the connection uses TLS.
    pub(crate) is_encrypted: bool,
}

/// Opens a connection and checks that the server can be used.
///
/// # Errors
/// [`StartError`].
pub(crate) async fn connect_and_check(connector: &Connector, address: &str) -> Result<CheckedServer, StartError> {
    let failed = |fault| StartError::Connect(address.to_owned(), fault);
    let mut connection = connector.log_in().await.map_err(|failure| failed(failure.into()))?;
    check_version(&connection, address)?;
    let facts = sqlx::raw_sql(FACTS).fetch_one(&mut connection).await.map_err(|error| failed(error.into()))?;
    let unreadable = |error: sqlx::Error| failed(error.into());
    let encoding: String = facts.try_get("encoding").map_err(unreadable)?;
    if encoding != "UTF8" {
        return Err(StartError::Encoding { address: address.to_owned(), found: encoding });
    }
    if facts.try_get("read_only").map_err(unreadable)? {
        return Err(StartError::ReadOnly(address.to_owned()));
    }
    let statement_timeout: String = facts.try_get("statement_timeout").map_err(unreadable)?;
    if connector.session().expects().is_some_and(|expected| expected != statement_timeout) {
        return Err(StartError::Pooler(address.to_owned()));
    }
    let is_encrypted = facts.try_get("encrypted").map_err(unreadable)?;
    Ok(CheckedServer { connection, is_encrypted })
}

/// Checks that two sessions of a pooler have a server each. In mode `transaction` the second one
/// gets the server that the first one has just released.
///
/// # Errors
/// [`StartError::Pooler`].
pub(crate) async fn check_backends(
    connector: &Connector,
    first: &mut PgConnection,
    address: &str,
) -> Result<(), StartError> {
    if !connector.session().shares_a_pooler() {
        return Ok(());
    }
    // Without a second session there is nothing to compare.
    let Ok(mut second) = connector.connect().await else { return Ok(()) };
    let (one, two) = (backend(first).await, backend(&mut second).await);
    let _ = second.close().await;
    match (one, two) {
        (Ok(one), Ok(two)) if one == two => Err(StartError::Pooler(address.to_owned())),
        _ => Ok(()),
    }
}

async fn backend(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(connection).await?.try_get(0)
}

/// Checks the version that the server reported when it accepted the connection.
fn check_version(connection: &PgConnection, address: &str) -> Result<(), StartError> {
    match connection.server_version_num() {
        Some(version) if version < OLDEST => {
            let found = format!("{}.{}", version / 10_000, version % 10_000);
            Err(StartError::Version { address: address.to_owned(), found })
        }
        // A server that reports no version is a compatible product, not Postgres itself.
        Some(_) | None => Ok(()),
    }
}
