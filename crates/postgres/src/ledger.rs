//! The ledger of applied migrations, `_sqlx_migrations`: it shows which service owns a database.
//!
//! The comment of the table names the service, so a database that is configured for another one is
//! refused with both names. A ledger without the comment is compared by its migrations.

use sqlx::migrate::Migration;
use sqlx::{PgConnection, Row as _};

/// Comment of the ledger, before the name of the service.
const COMMENT: &str = "ledger of the Tidings service ";
const EXISTS: &str = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL AS found, \
    obj_description(to_regclass('_sqlx_migrations'), 'pg_class') AS comment";
const ROWS: &str =
    "SELECT version, description, encode(checksum, 'hex') AS checksum FROM _sqlx_migrations ORDER BY version";

/// The database has another content than the service expects.
#[derive(Debug, thiserror::Error)]
pub enum ForeignDatabase {
    /// The database belongs to another service.
    #[error(
        "the database at {address} belongs to the service {owner}, this is {service}: set --postgres-url \
         (TIDINGS_POSTGRES_URL) to the database of {service}"
    )]
    OtherService {
        /// Address of the database.
        address: String,
        /// Service that applied its migrations to the database.
        owner: String,
        /// Service that was to use it.
        service: &'static str,
    },
    /// The applied migrations are those of another program.
    #[error(
        "the database at {address} belongs to another program, this is {service}: migration {version} is `{found}`, \
         not `{expected}`; set --postgres-url (TIDINGS_POSTGRES_URL) to the database of {service}"
    )]
    OtherMigrations {
        /// Address of the database.
        address: String,
        /// Service that was to use it.
        service: &'static str,
        /// Version of the first migration that differs.
        version: i64,
        /// Its description in the database.
        found: String,
        /// Description of the service's migration.
        expected: String,
    },
    /// A migration was changed after it was applied.
    #[error(
        "migration {version} `{description}` of {service} was changed after it was applied to the database at \
         {address}: run the release that applied it, or restore its migrations"
    )]
    Changed {
        /// Address of the database.
        address: String,
        /// Service that was to use it.
        service: &'static str,
        /// Version of the first migration that differs.
        version: i64,
        /// Its description.
        description: String,
    },
}

/// The applied migrations.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The service that applied them, if it is known.
    pub(crate) owner: Option<String>,
    rows: Vec<AppliedMigration>,
}

#[derive(Debug)]
struct AppliedMigration {
    version: i64,
    description: String,
    /// In hexadecimal digits.
    checksum: String,
}

impl Ledger {
    /// Reads the ledger; it is empty if no migration was ever applied.
    pub(crate) async fn read(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let table = sqlx::raw_sql(EXISTS).fetch_one(&mut *connection).await?;
        if !table.try_get::<bool, _>("found")? {
            return Ok(Self::default());
        }
        let comment: Option<String> = table.try_get("comment")?;
        let owner = comment.and_then(|comment| Some(comment.strip_prefix(COMMENT)?.to_owned()));
        let rows = sqlx::raw_sql(ROWS).fetch_all(connection).await?;
        let rows = rows.iter().map(|row| {
            Ok(AppliedMigration {
                version: row.try_get("version")?,
                description: row.try_get("description")?,
                checksum: row.try_get("checksum")?,
            })
        });
        Ok(Self { owner, rows: rows.collect::<Result<_, sqlx::Error>>()? })
    }

    /// Returns true if a migration was applied.
    pub(crate) fn has(&self, version: i64) -> bool {
        self.rows.iter().any(|row| row.version == version)
    }

    /// Checks that the ledger is that of a service. Migrations that the service does not know
    /// belong to a newer release.
    ///
    /// # Errors
    /// [`ForeignDatabase`].
    pub(crate) fn verify<'a>(
        &self,
        service: &'static str,
        known: impl Iterator<Item = &'a Migration>,
        address: &str,
    ) -> Result<(), ForeignDatabase> {
        let address = || address.to_owned();
        if let Some(owner) = self.owner.as_deref().filter(|owner| *owner != service) {
            return Err(ForeignDatabase::OtherService { address: address(), owner: owner.to_owned(), service });
        }
        let mut known = known.peekable();
        let oldest = self.rows.first().zip(known.peek().copied());
        if let Some((found, expected)) = oldest.filter(|(found, expected)| found.version != expected.version) {
            return Err(other_migrations(found, expected, service, address()));
        }
        for expected in known {
            let Some(found) = self.rows.iter().find(|row| row.version == expected.version) else { continue };
            if found.description != expected.description {
                return Err(other_migrations(found, expected, service, address()));
            }
            if found.checksum != hex(&expected.checksum) {
                let (version, description) = (found.version, found.description.clone());
                return Err(ForeignDatabase::Changed { address: address(), service, version, description });
            }
        }
        Ok(())
    }
}

fn other_migrations(
    found: &AppliedMigration,
    expected: &Migration,
    service: &'static str,
    address: String,
) -> ForeignDatabase {
    let (version, found) = (found.version, found.description.clone());
    let expected = expected.description.clone().into_owned();
    ForeignDatabase::OtherMigrations { address, service, version, found, expected }
}

/// Returns the statement that makes the ledger name its service.
pub(crate) fn claim(service: &str) -> String {
    format!("COMMENT ON TABLE _sqlx_migrations IS '{COMMENT}{service}'")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |digits, byte| format!("{digits}{byte:02x}"))
}
