//! Address of Postgres, and the limits on its use by a service.

use std::fmt;
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

/// Postgres settings, flattened into those of each service.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Postgres")]
#[group(skip)] // clap names groups after the struct and refuses duplicates
pub struct Args {
    /// URL of the service's database. May hold a password, so its value is never shown;
    /// `TIDINGS_POSTGRES_URL_FILE` can name a file that holds it.
    #[arg(long, env = "TIDINGS_POSTGRES_URL", hide_env_values = true, value_name = "URL")]
    pub postgres_url: PostgresUrl,

    /// Most connections for work that callers wait for, 1 to 1000.
    #[arg(long, env = "TIDINGS_POSTGRES_CONNECTIONS", default_value_t = 16, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub postgres_connections: u32,

    /// Longest wait for a free connection, e.g. `500ms`; then the call is refused as overloaded.
    #[arg(long, env = "TIDINGS_POSTGRES_ACQUIRE_TIMEOUT", default_value = "500ms", value_name = "DURATION",
          value_parser = duration)]
    pub postgres_acquire_timeout: humantime::Duration,

    /// Longest duration of one statement, e.g. `2s`; half of it for a wait for locks. A connection
    /// is closed if its work takes longer than this, the acquire timeout and 500 ms together.
    #[arg(long, env = "TIDINGS_POSTGRES_STATEMENT_TIMEOUT", default_value = "2s", value_name = "DURATION",
          value_parser = duration)]
    pub postgres_statement_timeout: humantime::Duration,
}

impl Args {
    /// Returns the default settings for a database.
    pub fn new(postgres_url: PostgresUrl) -> Self {
        Self {
            postgres_url,
            postgres_connections: 16,
            postgres_acquire_timeout: std::time::Duration::from_millis(500).into(),
            postgres_statement_timeout: std::time::Duration::from_secs(2).into(),
        }
    }
}

/// A connection URL that never shows its password.
#[derive(Clone)]
pub struct PostgresUrl(PgConnectOptions);

impl PostgresUrl {
    /// Returns the connect options that the URL describes.
    pub fn options(&self) -> &PgConnectOptions {
        &self.0
    }
}

impl FromStr for PostgresUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE";
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(EXPECTED);
        }
        text.parse().map(Self).map_err(|_| EXPECTED)
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (self.0.get_host(), self.0.get_port());
        write!(f, "postgres://{host}:{port}/{}", self.0.get_database().unwrap_or_default())
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Parses a duration greater than zero.
fn duration(text: &str) -> Result<humantime::Duration, &'static str> {
    match text.parse::<humantime::Duration>() {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("expected a duration like 800ms or 5s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_never_shows_its_password() {
        let url: PostgresUrl = "postgres://ada:secret@db:5433/tidings_user".parse().unwrap();

        assert_eq!(format!("{url} {url:?}"), "postgres://db:5433/tidings_user postgres://db:5433/tidings_user");
    }

    #[test]
    fn a_refused_url_is_not_repeated_in_the_error() {
        let refusal = "mysql://secret".parse::<PostgresUrl>().unwrap_err();

        assert!(!refusal.contains("secret"));
    }
}
