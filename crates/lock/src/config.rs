//! The settings: what all services share, and a few of our own.

use std::net::SocketAddr;
use std::time::Duration;

use tidings_server::duration;

use crate::model::{TTL_MAX, TTL_MIN};

/// The longest time between two signs of life: others take an instance for dead after three times as long.
const SWEEP_MAX: Duration = Duration::from_millis(500);

/// What a lock service needs to run.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Config {
    /// Address to serve gRPC on.
    #[arg(long, env = "TIDINGS_LISTEN", default_value = "127.0.0.1:7403", value_name = "ADDR:PORT")]
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

    /// How the locks behave.
    #[command(flatten, next_help_heading = "Locks")]
    pub locks: LockArgs,
}

/// How the locks behave.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct LockArgs {
    /// How long a lease lasts whose caller does not say, 1s to 300s; at least as long nobody is granted anything after Redis
    /// lost its data.
    #[arg(long, env = "TIDINGS_LOCK_DEFAULT_TTL", default_value_t = Self::default().lock_default_ttl, value_name = "DURATION",
          value_parser = ttl)]
    pub lock_default_ttl: humantime::Duration,

    /// Most calls that wait for locks at this instance; more are refused.
    #[arg(long, env = "TIDINGS_LOCK_MAX_WAITERS", default_value_t = Self::default().lock_max_waiters, value_name = "N",
          value_parser = waiters)]
    pub lock_max_waiters: usize,

    /// Time between two looks for what is over, by which others see that this instance lives; at most `500ms`.
    #[arg(long, env = "TIDINGS_LOCK_SWEEP_TICK", default_value_t = Self::default().lock_sweep_tick, value_name = "DURATION",
          value_parser = sweep)]
    pub lock_sweep_tick: humantime::Duration,

    /// Time between two looks after the places of all waiters, e.g. `1s`: so long a lost message delays one of them.
    #[arg(long, env = "TIDINGS_LOCK_REREAD_TICK", default_value_t = Self::default().lock_reread_tick, value_name = "DURATION",
          value_parser = duration)]
    pub lock_reread_tick: humantime::Duration,

    /// Promise that no client of an earlier run lives any more, nor another instance: if Redis has lost its data when this
    /// one starts, nobody waits for leases that nobody believes in. Has no effect on later losses.
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
    fn what_no_service_could_keep_is_refused() {
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
