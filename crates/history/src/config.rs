//! The settings: what all services share, and a few of our own.

use std::net::SocketAddr;
use std::time::Duration;

use tidings_server::duration;

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
}

/// How the tails behave.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct TailArgs {
    /// Life of a tail after its last message, +-15 % at random, e.g. `24h`.
    #[arg(long, env = "TIDINGS_HISTORY_TAIL_TTL", default_value_t = Self::default().history_tail_ttl, value_parser = duration)]
    pub history_tail_ttl: humantime::Duration,

    /// Longest time between a reader's miss and its load of the tail, e.g. `3s`; a later load is refused.
    #[arg(long, env = "TIDINGS_HISTORY_LEASE_TTL", default_value_t = Self::default().history_lease_ttl, value_parser = duration)]
    pub history_lease_ttl: humantime::Duration,

    /// Time between two looks of the relay at what the tails have yet to hear, e.g. `250ms`.
    #[arg(long, env = "TIDINGS_HISTORY_RELAY_TICK", default_value_t = Self::default().history_relay_tick, value_parser = duration)]
    pub history_relay_tick: humantime::Duration,
}

impl Default for TailArgs {
    fn default() -> Self {
        Self {
            history_tail_ttl: Duration::from_hours(24).into(),
            history_lease_ttl: Duration::from_secs(3).into(),
            history_relay_tick: Duration::from_millis(250).into(),
        }
    }
}

impl TailArgs {
    /// How long things stay in Redis.
    pub fn lives(&self) -> Lives {
        Lives { tail: *self.history_tail_ttl, lease: *self.history_lease_ttl }
    }
}
