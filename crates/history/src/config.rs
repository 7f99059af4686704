//! The settings of the service: those that all services share, and its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tidings_client::{Addresses, CredentialFiles, CredentialKind, Credentials, InvalidCredentials};
use tidings_server::{InvalidSetting, duration};

use crate::cache::TailTtls;

/// All settings of a history service.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Config {
    /// Address to serve gRPC on.
    #[arg(long, env = "TIDINGS_LISTEN", default_value = "127.0.0.1:7402", value_name = "ADDR:PORT")]
    pub listen: SocketAddr,

    /// Apply pending migrations before serving; without it the service refuses to start if a
    /// migration is pending.
    #[arg(long, env = "TIDINGS_MIGRATE")]
    pub migrate: bool,

    /// Connection to Postgres.
    #[command(flatten)]
    pub postgres: tidings_postgres::Args,

    /// Connection to Redis.
    #[command(flatten)]
    pub redis: tidings_redis::Args,

    /// Limits of the gRPC server.
    #[command(flatten, next_help_heading = "Server")]
    pub server: tidings_server::Args,

    /// Expiry of the tails and their leases.
    #[command(flatten, next_help_heading = "Tails")]
    pub tails: TailArgs,

    /// Connection to broadcast, and timing of the relay.
    #[command(flatten, next_help_heading = "Relay")]
    pub relay: RelayArgs,
}

/// Settings of the tails in Redis.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct TailArgs {
    /// TTL of a tail after its last message, with +/-15 % jitter, e.g. `24h`.
    #[arg(long, env = "TIDINGS_HISTORY_TAIL_TTL", default_value_t = Self::default().history_tail_ttl, value_name = "DURATION",
          value_parser = duration)]
    pub history_tail_ttl: humantime::Duration,

    /// TTL of the lease under which a reader loads a tail after a miss, e.g. `3s`; a later load is
    /// refused.
    #[arg(long, env = "TIDINGS_HISTORY_LEASE_TTL", default_value_t = Self::default().history_lease_ttl, value_name = "DURATION",
          value_parser = duration)]
    pub history_lease_ttl: humantime::Duration,
}

/// Settings of the relay.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct RelayArgs {
    /// Addresses of the broadcast service, HOST:PORT or https://HOST:PORT, separated by commas;
    /// without them messages are not published.
    #[arg(long, env = "TIDINGS_BROADCAST_ADDR", value_name = "ADDRESS")]
    pub broadcast_addr: Option<Addresses>,

    /// CA certificates in PEM that verify broadcast's certificate, for https. Reloaded when the
    /// file changes.
    #[arg(long, env = "TIDINGS_BROADCAST_CA", value_name = "FILE")]
    pub broadcast_ca: Option<PathBuf>,

    /// Client certificate chain in PEM for broadcast. Reloaded when the file changes.
    #[arg(long, env = "TIDINGS_BROADCAST_CERT", value_name = "FILE")]
    pub broadcast_cert: Option<PathBuf>,

    /// Private key in PEM of the client certificate. Reloaded when the file changes.
    #[arg(long, env = "TIDINGS_BROADCAST_KEY", value_name = "FILE")]
    pub broadcast_key: Option<PathBuf>,

    /// File with the token for broadcast, of the scopes broadcast:write and broadcast:relay.
    /// Reloaded when the file changes.
    #[arg(long, env = "TIDINGS_BROADCAST_TOKEN_FILE", value_name = "FILE")]
    pub broadcast_token_file: Option<PathBuf>,

    /// Interval at which the relay polls the outbox, e.g. `250ms`; normally a notification wakes it
    /// right after a commit.
    #[arg(long, env = "TIDINGS_HISTORY_RELAY_TICK", default_value_t = Self::default().history_relay_tick, value_name = "DURATION",
          value_parser = duration)]
    pub history_relay_tick: humantime::Duration,

    /// Refusals by broadcast after which an outbox row is parked, 1 to 1000; a parked row is not
    /// published, later rows are.
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
    /// Returns the addresses of broadcast and the credentials for it; `None` if no address is set.
    ///
    /// # Errors
    /// The setting that is invalid, such as a file that cannot be read.
    pub fn broadcast(&self) -> Result<Option<(&Addresses, Credentials)>, InvalidSetting> {
        let Some(addresses) = &self.broadcast_addr else { return Ok(None) };
        let files = CredentialFiles {
            ca: self.broadcast_ca.clone(),
            cert: self.broadcast_cert.clone(),
            key: self.broadcast_key.clone(),
            token: self.broadcast_token_file.clone(),
        };
        let invalid = |error: InvalidCredentials| {
            let (flag, variable) = match error.kind {
                CredentialKind::Ca => ("--broadcast-ca", "TIDINGS_BROADCAST_CA"),
                CredentialKind::Cert => ("--broadcast-cert", "TIDINGS_BROADCAST_CERT"),
                CredentialKind::Key => ("--broadcast-key", "TIDINGS_BROADCAST_KEY"),
                CredentialKind::Token => ("--broadcast-token-file", "TIDINGS_BROADCAST_TOKEN_FILE"),
            };
            InvalidSetting::new(flag, variable, error.to_string())
        };
        Ok(Some((addresses, Credentials::open(&files, addresses).map_err(invalid)?)))
    }
}

impl Default for TailArgs {
    fn default() -> Self {
        Self { history_tail_ttl: Duration::from_hours(24).into(), history_lease_ttl: Duration::from_secs(3).into() }
    }
}

impl TailArgs {
    /// Returns the expiry times of the keys in Redis.
    pub fn ttls(&self) -> TailTtls {
        TailTtls { tail: *self.history_tail_ttl, lease: *self.history_lease_ttl }
    }
}
