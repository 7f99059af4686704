//! Lanes as the tests open them.

use std::time::{Duration, Instant};

use tidings_devstack::{Devstack, Options, testing};
use tidings_redis::{Args, Error, Lane, Redis, Role, cmd};

/// Longest wait for anything that shall happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// A time-out for tests that see it pass.
pub(crate) const SHORT: Duration = Duration::from_millis(50);
/// A time-out for tests that are about something else, on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(5);

pub(crate) async fn own() -> Devstack {
    Devstack::start(Options::temporary()).await.unwrap()
}

/// Lanes under a prefix of their own.
pub(crate) fn open(stack: &Devstack, lanes: u16, timeout: Duration) -> Redis {
    Redis::open(&args(stack, lanes, timeout), "test", Role::Cache).unwrap()
}

/// Settings with a prefix of their own.
pub(crate) fn args(stack: &Devstack, lanes: u16, timeout: Duration) -> Args {
    Args {
        redis_prefix: testing::key_prefix(),
        redis_lanes: lanes,
        redis_timeout: Some(timeout.into()),
        redis_connect_timeout: LONG.into(),
        ..Args::new(stack.redis().url().parse().unwrap())
    }
}

/// Asks the server for the number of the connection behind a lane.
pub(crate) async fn connection(lane: Result<Lane, Error>) -> Result<i64, Error> {
    lane?.send(cmd("CLIENT").arg("ID")).await
}

/// Waits until a lane is connected, and returns it.
pub(crate) async fn connected(redis: &Redis) -> Lane {
    eventually("a lane is connected", async || connection(redis.reader().await).await.is_ok()).await;
    redis.reader().await.unwrap()
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
