//! Credentials of Postgres: read again for each connection, so that a rotated password needs no
//! restart.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use sqlx::postgres::PgConnectOptions;

use crate::args::PostgresUrl;

/// The URL of the database, and the file that it came from.
#[derive(Debug)]
pub(crate) struct PostgresCredentials {
    url: Mutex<PostgresUrl>,
    file: Option<PathBuf>,
}

impl PostgresCredentials {
    /// Starts with a URL; a file that holds it is read again for each connection.
    pub(crate) fn new(url: PostgresUrl, file: Option<PathBuf>) -> Self {
        Self { url: Mutex::new(url), file }
    }

    /// Returns the current URL.
    pub(crate) fn url(&self) -> PostgresUrl {
        self.url.lock().clone()
    }

    /// Returns the address for messages, without password.
    pub(crate) fn address(&self) -> String {
        self.url.lock().to_string()
    }

    /// Returns the current connect options. If the file cannot be used, the last ones are returned
    /// and the reason is logged.
    pub(crate) async fn current(&self) -> PgConnectOptions {
        if let Some(file) = &self.file {
            match read(file).await {
                Ok(url) => self.replace(url),
                Err(problem) => {
                    tracing::warn!(file = %file.display(), problem, "cannot read postgres credentials again");
                }
            }
        }
        self.url.lock().options().clone()
    }

    /// Takes over user and password. Another server or database needs the checks of a start.
    fn replace(&self, url: PostgresUrl) {
        let mut current = self.url.lock();
        if url.to_string() == current.to_string() {
            *current = url;
        } else {
            tracing::warn!(current = %current, found = %url, "the URL of postgres changed: restart to use it");
        }
    }
}

/// Reads a URL as the command line does: without white space around it, and without a BOM.
async fn read(file: &Path) -> Result<PostgresUrl, String> {
    let text = tokio::fs::read_to_string(file).await.map_err(|error| error.to_string())?;
    text.trim_start_matches('\u{feff}').trim().parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its checks at start did not concern that database.
    #[test]
    fn another_database_in_the_file_is_not_used() {
        let old: PostgresUrl = "postgres://ada:one@db/tidings_user".parse().unwrap();
        let credentials = PostgresCredentials::new(old, None);

        credentials.replace("postgres://bob:two@db/tidings_user".parse().unwrap());
        credentials.replace("postgres://eve:three@db/tidings_history".parse().unwrap());

        let current = credentials.url.lock();
        assert_eq!(current.options().get_username(), "bob");
        assert_eq!(current.options().get_database(), Some("tidings_user"));
    }
}
