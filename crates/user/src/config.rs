//! Settings: those of all services, and those of the user service.

use std::net::SocketAddr;
use std::time::Duration;

use tidings_server::{InvalidSetting, bytes, duration, duration_or_zero};

use crate::cache::ProfileTtls;
use crate::domain::WaitTimes;
use crate::local_cache::LocalCache;
use crate::watch::WatchLimits;

/// Settings of `tidings-user serve`.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
// Many short calls: short-lived connections let new instances share the load soon.
#[command(mut_arg("connection_age", |arg| arg.default_value("5m")))]
pub struct Config {
    /// Address to serve gRPC on.
    #[arg(long, env = "TIDINGS_LISTEN", default_value = "127.0.0.1:7401", value_name = "ADDR:PORT")]
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

    /// Settings of the gRPC server.
    #[command(flatten, next_help_heading = "Server")]
    pub server: tidings_server::Args,

    /// Settings of the caches.
    #[command(flatten, next_help_heading = "User cache")]
    pub cache: CacheArgs,

    /// Settings of WatchUsers.
    #[command(flatten, next_help_heading = "User watches")]
    pub watches: WatchArgs,
}

/// Settings of the caches and of the relay.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct CacheArgs {
    /// TTL of cached profiles in Redis, with +/-15 % jitter, e.g. `24h`.
    #[arg(long, env = "TIDINGS_USER_CACHE_TTL", default_value_t = Self::default().user_cache_ttl, value_name = "DURATION",
          value_parser = duration)]
    pub user_cache_ttl: humantime::Duration,

    /// Age at which a cached profile is refreshed in the background while it is still served, with
    /// +/-15 % jitter, e.g. `10m`.
    #[arg(long, env = "TIDINGS_USER_SOFT_TTL", default_value_t = Self::default().user_soft_ttl, value_name = "DURATION",
          value_parser = duration)]
    pub user_soft_ttl: humantime::Duration,

    /// Size of the local cache in bytes; 0 disables it. It is used only while Redis sends
    /// invalidations.
    #[arg(long, env = "TIDINGS_USER_LOCAL_CACHE_BYTES", default_value_t = Self::default().user_local_cache_bytes, value_name = "BYTES",
          value_parser = bytes)]
    pub user_local_cache_bytes: usize,

    /// TTL of profiles in the local cache, e.g. `5s`.
    #[arg(long, env = "TIDINGS_USER_LOCAL_CACHE_TTL", default_value_t = Self::default().user_local_cache_ttl, value_name = "DURATION",
          value_parser = duration)]
    pub user_local_cache_ttl: humantime::Duration,

    /// TTL of negative cache entries in Redis, with +/-15 % jitter, e.g. `15s`.
    #[arg(long, env = "TIDINGS_USER_ABSENT_TTL", default_value_t = Self::default().user_absent_ttl, value_name = "DURATION",
          value_parser = duration)]
    pub user_absent_ttl: humantime::Duration,

    /// TTL of the lease under which a reader fills the cache after a miss, e.g. `3s`; a later fill
    /// is refused.
    #[arg(long, env = "TIDINGS_USER_LEASE_TTL", default_value_t = Self::default().user_lease_ttl, value_name = "DURATION",
          value_parser = duration)]
    pub user_lease_ttl: humantime::Duration,

    /// Longest wait for another reader's fill before a reader reads Postgres itself, e.g.
    /// `200ms`.
    #[arg(long, env = "TIDINGS_USER_FILL_WAIT", default_value_t = Self::default().user_fill_wait, value_name = "DURATION",
          value_parser = duration)]
    pub user_fill_wait: humantime::Duration,

    /// Interval at which the relay reads the outbox, e.g. `250ms`.
    #[arg(long, env = "TIDINGS_USER_RELAY_TICK", default_value_t = Self::default().user_relay_tick, value_name = "DURATION",
          value_parser = duration)]
    pub user_relay_tick: humantime::Duration,

    /// Delay of the relay after a write of its own instance, e.g. `10ms`: a longer one batches more
    /// writes into one step and spares Postgres, a shorter one notifies watchers earlier.
    #[arg(long, env = "TIDINGS_USER_RELAY_GATHER", default_value_t = Self::default().user_relay_gather,
          value_name = "DURATION", value_parser = duration_or_zero)]
    pub user_relay_gather: humantime::Duration,
}

/// Settings of WatchUsers.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct WatchArgs {
    /// Limit of ids watched by all streams of this instance; an id counts once for each stream.
    /// About 300 bytes per watch; each distinct id adds a few microseconds of Postgres time per
    /// comparison.
    #[arg(long, env = "TIDINGS_USER_WATCHED_IDS", default_value_t = Self::default().user_watched_ids, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub user_watched_ids: u32,

    /// Interval at which watched versions are compared with Postgres, e.g. `5s`: the longest delay
    /// of a change whose notification was lost.
    #[arg(long, env = "TIDINGS_USER_COMPARE_INTERVAL", default_value_t = Self::default().user_compare_interval,
          value_name = "DURATION", value_parser = duration)]
    pub user_compare_interval: humantime::Duration,

    /// Time without another frame after which a stream of WatchUsers sends a heartbeat, e.g. `25s`.
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
    /// Limits of the streams.
    pub fn limits(&self) -> WatchLimits {
        WatchLimits { ids: self.user_watched_ids.try_into().unwrap_or(usize::MAX), heartbeat: *self.user_heartbeat }
    }
}

impl Default for CacheArgs {
    fn default() -> Self {
        Self {
            user_cache_ttl: Duration::from_hours(24).into(),
            user_soft_ttl: Duration::from_mins(10).into(),
            user_local_cache_bytes: 64 << 20,
            user_local_cache_ttl: Duration::from_secs(5).into(),
            user_absent_ttl: Duration::from_secs(15).into(),
            user_lease_ttl: Duration::from_secs(3).into(),
            user_fill_wait: Duration::from_millis(200).into(),
            user_relay_tick: Duration::from_millis(250).into(),
            user_relay_gather: Duration::from_millis(10).into(),
        }
    }
}

impl CacheArgs {
    /// Validates settings that depend on each other.
    ///
    /// # Errors
    /// A fill wait above the lease TTL, or a soft TTL above the TTL of profiles.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        if *self.user_fill_wait > *self.user_lease_ttl {
            let problem = format!(
                "'{}': expected at most the {} of --user-lease-ttl (TIDINGS_USER_LEASE_TTL): later fills are refused",
                self.user_fill_wait, self.user_lease_ttl
            );
            return Err(InvalidSetting::new("--user-fill-wait", "TIDINGS_USER_FILL_WAIT", problem));
        }
        if *self.user_soft_ttl > *self.user_cache_ttl {
            let problem = format!(
                "'{}': expected at most the {} of --user-cache-ttl (TIDINGS_USER_CACHE_TTL): profiles expire by then",
                self.user_soft_ttl, self.user_cache_ttl
            );
            return Err(InvalidSetting::new("--user-soft-ttl", "TIDINGS_USER_SOFT_TTL", problem));
        }
        Ok(())
    }

    /// Waits of readers and of the relay.
    pub fn wait_times(&self) -> WaitTimes {
        WaitTimes { fill: *self.user_fill_wait, gather: *self.user_relay_gather }
    }

    /// Creates the local cache of an instance.
    pub fn local_cache(&self) -> LocalCache {
        LocalCache::new(self.user_local_cache_bytes, *self.user_local_cache_ttl)
    }

    /// TTLs of the Redis cache.
    pub fn ttls(&self) -> ProfileTtls {
        ProfileTtls {
            present: *self.user_cache_ttl,
            soft: *self.user_soft_ttl,
            absent: *self.user_absent_ttl,
            lease: *self.user_lease_ttl,
        }
    }
}
