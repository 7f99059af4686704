//! Address of Redis, and the limits on waits for it.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, TlsCertificates};

/// Redis settings, flattened into those of each service.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Redis")]
#[group(skip)] // clap names groups after the struct and refuses duplicates
pub struct Args {
    /// URL of the Redis server, `redis://` or `rediss://`. May hold a password, so its value is
    /// never shown; `TIDINGS_REDIS_URL_FILE` can name a file that holds it. User and password in
    /// that file are read again for each connection.
    #[arg(long, env = "TIDINGS_REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub redis_url: RedisUrl,

    /// File that `redis_url` was read from.
    #[arg(id = "redis_url_source", long = "redis-url-file", env = "TIDINGS_REDIS_URL_FILE", hide = true)]
    pub redis_url_file: Option<PathBuf>,

    /// PEM file with the CA certificates that sign the certificate of Redis, for `rediss://`; read
    /// again for each connection. The system's are used without it.
    #[arg(long, env = "TIDINGS_REDIS_CA", value_name = "FILE", value_parser = ca)]
    pub redis_ca: Option<PathBuf>,

    /// Prefix of all keys: 1 to 64 of `[A-Za-z0-9._-]`. Installations on one server need different
    /// ones.
    #[arg(long, env = "TIDINGS_REDIS_PREFIX", default_value = "tidings", value_name = "TEXT", value_parser = prefix)]
    pub redis_prefix: String,

    /// Number of lanes: connections that all callers share, 1 to 64.
    #[arg(long, env = "TIDINGS_REDIS_LANES", default_value_t = 2, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub redis_lanes: u16,

    /// Longest wait for a reply, e.g. `50ms`; then a cache is bypassed, and a state store counts as
    /// unavailable [default: 50ms for user and history, 150ms for lock and broadcast].
    #[arg(long, env = "TIDINGS_REDIS_TIMEOUT", value_name = "DURATION", value_parser = duration)]
    pub redis_timeout: Option<humantime::Duration>,

    /// Longest time to connect, e.g. `300ms`.
    #[arg(long, env = "TIDINGS_REDIS_CONNECT_TIMEOUT", default_value = "300ms", value_name = "DURATION",
          value_parser = duration)]
    pub redis_connect_timeout: humantime::Duration,

    /// Accept a Redis that may evict keys for locks and channels, although leases and messages may
    /// then be lost at any time; refused otherwise. Caches do not need this.
    #[arg(long, env = "TIDINGS_ALLOW_EVICTION")]
    pub allow_eviction: bool,
}

impl Args {
    /// Returns the default settings for a server.
    pub fn new(redis_url: RedisUrl) -> Self {
        Self {
            redis_url,
            redis_url_file: None,
            redis_ca: None,
            redis_prefix: "tidings".to_owned(),
            redis_lanes: 2,
            redis_timeout: None,
            redis_connect_timeout: Duration::from_millis(300).into(),
            allow_eviction: false,
        }
    }
}

/// Kind of data that a service keeps in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Copies: a loss costs time. Keys contain the incarnation, so another incarnation is an empty
    /// cache.
    Cache,
    /// The only copy. Keys are the same in every incarnation, and each script compares the
    /// incarnation. A server that may evict keys is refused, unless that is allowed.
    State,
}

impl Role {
    /// Returns the default of the longest wait for a reply.
    pub(crate) fn timeout(self) -> Duration {
        match self {
            Self::Cache => Duration::from_millis(50),
            Self::State => Duration::from_millis(150),
        }
    }
}

/// A connection URL that never shows its password.
#[derive(Clone)]
pub struct RedisUrl(ConnectionInfo);

impl RedisUrl {
    /// Returns the connection info that the URL describes.
    pub fn info(&self) -> &ConnectionInfo {
        &self.0
    }

    /// Returns true if no network is between this process and the server.
    pub fn is_local(&self) -> bool {
        match self.0.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            }
            _ => true,
        }
    }

    /// Returns true if the connection is encrypted, and the certificate verified.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.0.addr(), ConnectionAddr::TcpTls { insecure: false, .. })
    }
}

impl FromStr for RedisUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.into_connection_info().map(Self).map_err(|_| "expected redis://[USER:PASSWORD@]HOST[:PORT][/DB]")
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "redis://{}", self.0.addr())
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn prefix(text: &str) -> Result<String, &'static str> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(legal) {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 64 of [A-Za-z0-9._-]")
    }
}

/// Checks that a file has certificates in PEM.
fn ca(text: &str) -> Result<PathBuf, String> {
    let root_cert = fs::read(text).map_err(|error| format!("expected a file that can be read: {error}"))?;
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(root_cert) };
    match Client::build_with_tls("rediss://localhost", certificates) {
        Ok(_) => Ok(text.into()),
        Err(error) => Err(format!("expected certificates in PEM: {error}")),
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
        let url: RedisUrl = "redis://:secret@cache:6380".parse().unwrap();

        assert_eq!(format!("{url} {url:?}"), "redis://cache:6380 redis://cache:6380");
    }

    #[test]
    fn a_prefix_with_braces_is_refused() {
        assert!(prefix("chat.v1").is_ok());
        assert!(prefix("{chat}").is_err());
        assert!(prefix("").is_err());
    }
}
