//! Settings of Postgres: its address, the way to it, and the limits on its use by a service.

use std::path::PathBuf;
use std::time::Duration;

pub use crate::url::PostgresUrl;

/// Postgres settings, flattened into those of each service.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Postgres")]
#[group(skip)] // clap names groups after the struct and refuses duplicates
pub struct Args {
    /// URL of the service's database. May hold a password, so its value is never shown;
    /// `TIDINGS_POSTGRES_URL_FILE` can name a file that holds it. User and password in that file
    /// are read again for each connection. `?sslmode=` and `sslrootcert=` set TLS and the CA.
    #[arg(long, env = "TIDINGS_POSTGRES_URL", hide_env_values = true, value_name = "URL")]
    pub postgres_url: PostgresUrl,

    /// File that `postgres_url` was read from.
    #[arg(id = "postgres_url_source", long = "postgres-url-file", env = "TIDINGS_POSTGRES_URL_FILE", hide = true)]
    pub postgres_url_file: Option<PathBuf>,

    /// Most connections for work that callers wait for, 1 to 1000. Fewer are used if Postgres gives
    /// fewer.
    #[arg(long, env = "TIDINGS_POSTGRES_CONNECTIONS", default_value_t = 16, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub postgres_connections: u32,

    /// Longest wait for a free connection, e.g. `500ms`; then the call is refused as overloaded.
    #[arg(long, env = "TIDINGS_POSTGRES_ACQUIRE_TIMEOUT", default_value = "500ms", value_name = "DURATION",
          value_parser = duration)]
    pub postgres_acquire_timeout: humantime::Duration,

    /// Longest time to open a connection, TLS and log-in included, e.g. `5s`. Calls do not wait
    /// longer for it than for a free connection.
    #[arg(long, env = "TIDINGS_POSTGRES_CONNECT_TIMEOUT", default_value = "5s", value_name = "DURATION",
          value_parser = duration)]
    pub postgres_connect_timeout: humantime::Duration,

    /// Longest duration of one statement, e.g. `2s`; half of it for a wait for locks. A connection
    /// is closed if its work takes longer than this, the acquire timeout and 500 ms together.
    #[arg(long, env = "TIDINGS_POSTGRES_STATEMENT_TIMEOUT", default_value = "2s", value_name = "DURATION",
          value_parser = duration)]
    pub postgres_statement_timeout: humantime::Duration,

    /// Mode of a connection pooler such as PgBouncer in front of Postgres: `none`, `session` or
    /// `transaction`. The latter costs two round trips per piece of work.
    #[arg(long, env = "TIDINGS_POSTGRES_POOLER", default_value = "none", value_name = "MODE")]
    pub postgres_pooler: Pooler,
}

/// Mode of a connection pooler between a service and Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Pooler {
    /// There is no pooler.
    None,
    /// A client keeps its server until it disconnects.
    Session,
    /// A client gets a server for each transaction.
    Transaction,
}

impl Args {
    /// Returns the default settings for a database.
    pub fn new(postgres_url: PostgresUrl) -> Self {
        Self {
            postgres_url,
            postgres_url_file: None,
            postgres_connections: 16,
            postgres_acquire_timeout: Duration::from_millis(500).into(),
            postgres_connect_timeout: Duration::from_secs(5).into(),
            postgres_statement_timeout: Duration::from_secs(2).into(),
            postgres_pooler: Pooler::None,
        }
    }
}

/// Parses a duration greater than zero.
fn duration(text: &str) -> Result<humantime::Duration, &'static str> {
    match text.parse::<humantime::Duration>() {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("expected a duration like 800ms or 5s"),
    }
}
