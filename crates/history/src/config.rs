//! The settings: what all services share, and a few of our own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tidings_client::{Addresses, Credentials, Files, Part, Unusable};
use tidings_server::duration;
use tidings_server::security::Wrong;

use crate::cache::Lives;

/// What a history service needs to run.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Config {
    /// Address to serve gRPC on.
    #[arg(long, env = "TIDINGS_LISTEN", default_value = "127.0.0.1:7402", value_name = "ADDR:PORT")]
    pub listen: SocketAddr,

    /// Apply pending migrations before serving; without it a pending migration refuses to start.
    #[arg(long, env = "TIDINGS_MIGRATE")]
    pub migrate: bool,

    /// Where Postgres is.
    #[command(flatten)]
    pub postgres: tidings_postgres::Args,

    /// Where Redis is.
    #[command(flatten)]
    pub redis: tidings_redis::Args,

    /// Limits of the server.
    #[command(flatten, next_help_heading = "Server")]
    pub server: tidings_server::Args,

    /// How the tails behave.
    #[command(flatten, next_help_heading = "Tails")]
    pub tails: TailArgs,

    /// How the relay behaves.
    #[command(flatten, next_help_heading = "Relay")]
    pub relay: RelayArgs,
}

/// How the tails behave.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct TailArgs {
    /// Life of a tail after its last message, +-15 % at random, e.g. `24h`.
    #[arg(long, env = "TIDINGS_HISTORY_TAIL_TTL", default_value_t = Self::default().history_tail_ttl, value_name = "DURATION",
          value_parser = duration)]
    pub history_tail_ttl: humantime::Duration,

    /// Longest time between a reader's miss and its load of the tail, e.g. `3s`; a later load is refused.
    #[arg(long, env = "TIDINGS_HISTORY_LEASE_TTL", default_value_t = Self::default().history_lease_ttl, value_name = "DURATION",
          value_parser = duration)]
    pub history_lease_ttl: humantime::Duration,
}

/// How the relay behaves.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct RelayArgs {
    /// Where the broadcast service is, HOST:PORT or https://HOST:PORT, several separated by commas; without it messages are
    /// not published.
    #[arg(long, env = "TIDINGS_BROADCAST_ADDR", value_name = "ADDRESS")]
    pub broadcast_addr: Option<Addresses>,

    /// Certificates in PEM of those who signed broadcast, for https. Read again when it changes.
    #[arg(long, env = "TIDINGS_BROADCAST_CA", value_name = "FILE")]
    pub broadcast_ca: Option<PathBuf>,

    /// Certificate chain in PEM that broadcast is shown. Read again when it changes.
    #[arg(long, env = "TIDINGS_BROADCAST_CERT", value_name = "FILE")]
    pub broadcast_cert: Option<PathBuf>,

    /// Private key of that certificate in PEM. Read again when it changes.
    #[arg(long, env = "TIDINGS_BROADCAST_KEY", value_name = "FILE")]
    pub broadcast_key: Option<PathBuf>,

    /// Token that broadcast is shown, with the scope broadcast:write. Read again when it changes.
    #[arg(long, env = "TIDINGS_BROADCAST_TOKEN_FILE", value_name = "FILE")]
    pub broadcast_token_file: Option<PathBuf>,

    /// Longest time between a commit and the relay's look at it, e.g. `250ms`; in the usual case it is told at once.
    #[arg(long, env = "TIDINGS_HISTORY_RELAY_TICK", default_value_t = Self::default().history_relay_tick, value_name = "DURATION",
          value_parser = duration)]
    pub history_relay_tick: humantime::Duration,

    /// How often broadcast may refuse a message before it is parked: not published, and later ones go on, 1 to 1000.
    #[arg(long, env = "TIDINGS_HISTORY_PARK_AFTER", default_value_t = Self::default().history_park_after, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub history_park_after: u16,
}

impl Default for RelayArgs {
    fn default() -> Self {
        Self {
            broadcast_addr: None,
            broadcast_ca: None,
            broadcast_cert: None,
            broadcast_key: None,
            broadcast_token_file: None,
            history_relay_tick: Duration::from_millis(250).into(),
            history_park_after: 10,
        }
    }
}

impl RelayArgs {
    /// The instances of broadcast, if there is one, and what they are shown.
    ///
    /// # Errors
    /// The setting that is wrong.
    pub fn broadcast(&self) -> Result<Option<(&Addresses, Credentials)>, Wrong> {
        let Some(addresses) = &self.broadcast_addr else { return Ok(None) };
        let files = Files {
            ca: self.broadcast_ca.clone(),
            cert: self.broadcast_cert.clone(),
            key: self.broadcast_key.clone(),
            token: self.broadcast_token_file.clone(),
        };
        let wrong = |unusable: Unusable| {
            let (flag, variable) = match unusable.part {
                Part::Ca => ("--broadcast-ca", "TIDINGS_BROADCAST_CA"),
                Part::Cert => ("--broadcast-cert", "TIDINGS_BROADCAST_CERT"),
                Part::Key => ("--broadcast-key", "TIDINGS_BROADCAST_KEY"),
                Part::Token => ("--broadcast-token-file", "TIDINGS_BROADCAST_TOKEN_FILE"),
            };
            Wrong::new(flag, variable, unusable.to_string())
        };
        Ok(Some((addresses, Credentials::open(&files, addresses).map_err(wrong)?)))
    }
}

impl Default for TailArgs {
    fn default() -> Self {
        Self { history_tail_ttl: Duration::from_hours(24).into(), history_lease_ttl: Duration::from_secs(3).into() }
    }
}

impl TailArgs {
    /// How long things stay in Redis.
    pub fn lives(&self) -> Lives {
        Lives { tail: *self.history_tail_ttl, lease: *self.history_lease_ttl }
    }
}
