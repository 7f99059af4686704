//! Helpers that open lanes and wait for conditions.

use std::time::Duration;

use tidings_devstack::RedisServer;
use tidings_devstack::testing::{self, eventually};
use tidings_redis::{Args, Error, Lane, Redis, Role, cmd};

/// Response timeout of tests that wait for it.
pub(crate) const SHORT_TIMEOUT: Duration = Duration::from_millis(50);
/// Response timeout of tests that must not reach it, even on a busy machine.
pub(crate) const LONG_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens lanes whose keys have a prefix of their own.
pub(crate) fn open_redis(server: &RedisServer, lanes: u16, timeout: Duration) -> Redis {
    Redis::open(&args(server, lanes, timeout), "test", Role::Cache).unwrap()
}

/// Returns settings with a key prefix of their own.
pub(crate) fn args(server: &RedisServer, lanes: u16, timeout: Duration) -> Args {
    Args {
        redis_prefix: testing::key_prefix(),
        redis_lanes: lanes,
        redis_timeout: Some(timeout.into()),
        redis_connect_timeout: LONG_TIMEOUT.into(),
        ..Args::new(server.url().parse().unwrap())
    }
}

/// Returns the server's id of the connection behind a lane.
pub(crate) async fn connection_id(lane: Result<Lane, Error>) -> Result<i64, Error> {
    lane?.send(cmd("CLIENT").arg("ID")).await
}

/// Waits until a lane is connected; returns it.
pub(crate) async fn connected_lane(redis: &Redis) -> Lane {
    eventually("a lane is connected", async || connection_id(redis.reader().await).await.is_ok()).await;
    redis.reader().await.unwrap()
}
