//! Settings of the lock service: those of every service, and a few of its own.

use std::net::SocketAddr;
use std::time::Duration;

use tidings_server::duration;

use crate::model::{TTL_MAX, TTL_MIN};

/// Longest interval between two heartbeats of an instance: it counts as dead after three missed
/// ones (1.5 s, `INSTANCE_TIMEOUT` in `prelude.lua`).
const SWEEP_MAX: Duration = Duration::from_millis(500);

/// Configuration of the lock service.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Config {
    /// Address to serve gRPC on.
    #[arg(long, env = "TIDINGS_LISTEN", default_value = "127.0.0.1:7403", value_name = "ADDR:PORT")]
    pub listen: SocketAddr,

    /// Apply pending migrations before serving; without it the service refuses to start if a
    /// migration is pending.
    #[arg(long, env = "TIDINGS_MIGRATE")]
    pub migrate: bool,

    /// Settings of the Postgres connections.
    #[command(flatten)]
    pub postgres: tidings_postgres::Args,

    /// Settings of the Redis connections.
    #[command(flatten)]
    pub redis: tidings_redis::Args,

    /// Limits of the server.
    #[command(flatten, next_help_heading = "Server")]
    pub server: tidings_server::Args,

    /// Behaviour of the locks.
    #[command(flatten, next_help_heading = "Locks")]
    pub locks: LockArgs,
}

/// Behaviour of the locks.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct LockArgs {
    /// Lease length of an acquire without `ttl`, 1s to 300s; the quarantine after Redis lost its
    /// state lasts at least as long.
    #[arg(long, env = "TIDINGS_LOCK_DEFAULT_TTL", default_value_t = Self::default().lock_default_ttl, value_name = "DURATION",
          value_parser = ttl)]
    pub lock_default_ttl: humantime::Duration,

    /// Most calls that wait for locks at this instance; further ones are refused.
    #[arg(long, env = "TIDINGS_LOCK_MAX_WAITERS", default_value_t = Self::default().lock_max_waiters, value_name = "N",
          value_parser = waiters)]
    pub lock_max_waiters: usize,

    /// Interval between two sweeps, which end expired holds and are this instance's heartbeat; at
    /// most `500ms`.
    #[arg(long, env = "TIDINGS_LOCK_SWEEP_TICK", default_value_t = Self::default().lock_sweep_tick, value_name = "DURATION",
          value_parser = sweep)]
    pub lock_sweep_tick: humantime::Duration,

    /// Interval between two rechecks of all waiters, e.g. `1s`: the longest delay by a lost
    /// notification.
    #[arg(long, env = "TIDINGS_LOCK_REREAD_TICK", default_value_t = Self::default().lock_reread_tick, value_name = "DURATION",
          value_parser = duration)]
    pub lock_reread_tick: humantime::Duration,

    /// Skip the quarantine if Redis has lost its state when this instance starts. A promise that no
    /// other instance and no client of an earlier run is alive; later losses have a quarantine.
    #[arg(long, env = "TIDINGS_LOCK_FRESH_START", hide_short_help = true)]
    pub lock_fresh_start: bool,
}

impl Default for LockArgs {
    fn default() -> Self {
        Self {
            lock_default_ttl: Duration::from_secs(10).into(),
            lock_max_waiters: 20_000,
            lock_sweep_tick: Duration::from_millis(250).into(),
            lock_reread_tick: Duration::from_secs(1).into(),
            lock_fresh_start: false,
        }
    }
}

fn ttl(text: &str) -> Result<humantime::Duration, &'static str> {
    match text.parse::<humantime::Duration>() {
        Ok(ttl) if (TTL_MIN..=TTL_MAX).contains(&*ttl) => Ok(ttl),
        _ => Err("expected a duration from 1s to 300s"),
    }
}

fn sweep(text: &str) -> Result<humantime::Duration, &'static str> {
    match text.parse::<humantime::Duration>() {
        Ok(tick) if !tick.is_zero() && *tick <= SWEEP_MAX => Ok(tick),
        _ => Err("expected a duration of at most 500ms"),
    }
}

fn waiters(text: &str) -> Result<usize, &'static str> {
    match text.parse() {
        Ok(waiters) if (1..=1_000_000).contains(&waiters) => Ok(waiters),
        _ => Err("expected 1 to 1000000"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::LockArgs;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        locks: LockArgs,
    }

    fn parse(arguments: &[&str]) -> Result<LockArgs, clap::Error> {
        let parsed = Command::try_parse_from(["lock"].iter().chain(arguments))?;
        Ok(parsed.locks)
    }

    #[test]
    fn unset_settings_are_the_defaults() {
        let locks = parse(&[]).unwrap();

        assert_eq!((locks.lock_default_ttl.as_secs(), locks.lock_max_waiters), (10, 20_000));
        assert!(!locks.lock_fresh_start);
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        for wrong in [
            ["--lock-default-ttl", "999ms"],
            ["--lock-default-ttl", "301s"],
            ["--lock-max-waiters", "0"],
            ["--lock-sweep-tick", "501ms"],
            ["--lock-sweep-tick", "0s"],
            ["--lock-reread-tick", "0s"],
        ] {
            parse(&wrong).unwrap_err();
        }
        parse(&["--lock-default-ttl", "300s", "--lock-sweep-tick", "500ms", "--lock-max-waiters", "1"]).unwrap();
    }
}
