//! The settings: what all services share, and a few of our own.

use std::net::SocketAddr;
use std::time::Duration;

use tidings_server::security::Wrong;
use tidings_server::{bytes, duration, duration_or_zero};

use crate::cache::Lives;
use crate::domain::Waits;
use crate::near::Near;
use crate::watch::Limits;

/// What a user service needs to run.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
// Calls are short and there are many: instances that come share the load soon.
#[command(mut_arg("connection_age", |arg| arg.default_value("5m")))]
pub struct Config {
    /// Address to serve gRPC on.
    #[arg(long, env = "TIDINGS_LISTEN", default_value = "127.0.0.1:7401", value_name = "ADDR:PORT")]
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

    /// How the cache behaves.
    #[command(flatten, next_help_heading = "User cache")]
    pub cache: CacheArgs,

    /// How versions are watched.
    #[command(flatten, next_help_heading = "User watches")]
    pub watches: WatchArgs,
}

/// How the cache behaves.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct CacheArgs {
    /// Life of a cached profile, +-15 % at random, e.g. `24h`.
    #[arg(long, env = "TIDINGS_USER_CACHE_TTL", default_value_t = Self::default().user_cache_ttl, value_name = "DURATION",
          value_parser = duration)]
    pub user_cache_ttl: humantime::Duration,

    /// Age at which a cached profile is read anew, +-15 %, while it is still answered, e.g. `10m`.
    #[arg(long, env = "TIDINGS_USER_SOFT_TTL", default_value_t = Self::default().user_soft_ttl, value_name = "DURATION",
          value_parser = duration)]
    pub user_soft_ttl: humantime::Duration,

    /// Bytes of profiles that are kept in memory, for as long as Redis tells of changes; 0 keeps none.
    #[arg(long, env = "TIDINGS_USER_NEAR_BYTES", default_value_t = Self::default().user_near_bytes, value_name = "BYTES",
          value_parser = bytes)]
    pub user_near_bytes: usize,

    /// Longest time that a profile is kept in memory without another look into Redis, e.g. `5s`.
    #[arg(long, env = "TIDINGS_USER_NEAR_TTL", default_value_t = Self::default().user_near_ttl, value_name = "DURATION",
          value_parser = duration)]
    pub user_near_ttl: humantime::Duration,

    /// Life of the knowledge that there is no user, +-15 % at random, e.g. `15s`.
    #[arg(long, env = "TIDINGS_USER_ABSENT_TTL", default_value_t = Self::default().user_absent_ttl, value_name = "DURATION",
          value_parser = duration)]
    pub user_absent_ttl: humantime::Duration,

    /// Longest time between a reader's miss and its fill, e.g. `3s`; a later fill is refused.
    #[arg(long, env = "TIDINGS_USER_LEASE_TTL", default_value_t = Self::default().user_lease_ttl, value_name = "DURATION",
          value_parser = duration)]
    pub user_lease_ttl: humantime::Duration,

    /// Longest wait of a reader for another reader's fill before it reads Postgres itself, e.g. `200ms`.
    #[arg(long, env = "TIDINGS_USER_FILL_WAIT", default_value_t = Self::default().user_fill_wait, value_name = "DURATION",
          value_parser = duration)]
    pub user_fill_wait: humantime::Duration,

    /// Time between two looks of the relay at what the cache has yet to hear, e.g. `250ms`.
    #[arg(long, env = "TIDINGS_USER_RELAY_TICK", default_value_t = Self::default().user_relay_tick, value_name = "DURATION",
          value_parser = duration)]
    pub user_relay_tick: humantime::Duration,

    /// Time that the relay gathers what was written at this instance before it takes a step, e.g. `10ms`: longer spares
    /// Postgres, shorter tells watchers earlier.
    #[arg(long, env = "TIDINGS_USER_RELAY_GATHER", default_value_t = Self::default().user_relay_gather,
          value_name = "DURATION", value_parser = duration_or_zero)]
    pub user_relay_gather: humantime::Duration,
}

/// How versions are watched.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct WatchArgs {
    /// The most ids that all streams of WatchUsers may watch, each stream's counted for itself: 300 bytes each, and each that
    /// is different some microseconds of Postgres in a comparison.
    #[arg(long, env = "TIDINGS_USER_WATCHED_IDS", default_value_t = Self::default().user_watched_ids, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub user_watched_ids: u32,

    /// How often the versions of watched ids are compared with Postgres, e.g. `5s`: news that got lost are found so late.
    #[arg(long, env = "TIDINGS_USER_COMPARE_INTERVAL", default_value_t = Self::default().user_compare_interval,
          value_name = "DURATION", value_parser = duration)]
    pub user_compare_interval: humantime::Duration,

    /// Time without another frame after which a stream of WatchUsers gets a heartbeat, e.g. `25s`.
    #[arg(long, env = "TIDINGS_USER_HEARTBEAT", default_value_t = Self::default().user_heartbeat, value_name = "DURATION",
          value_parser = duration)]
    pub user_heartbeat: humantime::Duration,
}

impl Default for WatchArgs {
    fn default() -> Self {
        Self {
            user_watched_ids: 200_000,
            user_compare_interval: Duration::from_secs(5).into(),
            user_heartbeat: Duration::from_secs(25).into(),
        }
    }
}

impl WatchArgs {
    /// What bounds the streams.
    pub fn limits(&self) -> Limits {
        Limits { ids: self.user_watched_ids.try_into().unwrap_or(usize::MAX), heartbeat: *self.user_heartbeat }
    }
}

impl Default for CacheArgs {
    fn default() -> Self {
        Self {
            user_cache_ttl: Duration::from_hours(24).into(),
            user_soft_ttl: Duration::from_mins(10).into(),
            user_near_bytes: 64 << 20,
            user_near_ttl: Duration::from_secs(5).into(),
            user_absent_ttl: Duration::from_secs(15).into(),
            user_lease_ttl: Duration::from_secs(3).into(),
            user_fill_wait: Duration::from_millis(200).into(),
            user_relay_tick: Duration::from_millis(250).into(),
            user_relay_gather: Duration::from_millis(10).into(),
        }
    }
}

impl CacheArgs {
    /// Says what these settings together are wrong about.
    ///
    /// # Errors
    /// A wait that outlasts the lease of the reader who is waited for; a profile that is gone before it is old.
    pub fn validate(&self) -> Result<(), Wrong> {
        if *self.user_fill_wait > *self.user_lease_ttl {
            let problem = format!(
                "'{}': expected at most the {} of --user-lease-ttl (TIDINGS_USER_LEASE_TTL): nobody fills later than that",
                self.user_fill_wait, self.user_lease_ttl
            );
            return Err(Wrong::new("--user-fill-wait", "TIDINGS_USER_FILL_WAIT", problem));
        }
        if *self.user_soft_ttl > *self.user_cache_ttl {
            let problem = format!(
                "'{}': expected at most the {} of --user-cache-ttl (TIDINGS_USER_CACHE_TTL): nothing gets older than that",
                self.user_soft_ttl, self.user_cache_ttl
            );
            return Err(Wrong::new("--user-soft-ttl", "TIDINGS_USER_SOFT_TTL", problem));
        }
        Ok(())
    }

    /// What a reader and the relay wait for.
    pub fn waits(&self) -> Waits {
        Waits { fill: *self.user_fill_wait, gather: *self.user_relay_gather }
    }

    /// The memory of an instance.
    pub fn near(&self) -> Near {
        Near::new(self.user_near_bytes, *self.user_near_ttl)
    }

    /// How long things stay in the cache.
    pub fn lives(&self) -> Lives {
        Lives {
            present: *self.user_cache_ttl,
            soft: *self.user_soft_ttl,
            absent: *self.user_absent_ttl,
            lease: *self.user_lease_ttl,
        }
    }
}
