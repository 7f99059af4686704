//! The example at the head of the crate, on a real server.

use std::error::Error;

use tidings_devstack::testing;
use tidings_redis::{Args, Redis, Role, Script, WriteOutcome, cmd};

use super::support::LONG_TIMEOUT;

#[tokio::test]
async fn the_example_of_the_documentation_holds() -> Result<(), Box<dyn Error>> {
    let url = testing::shared_redis().await.url();
    let args = Args::new(url.parse()?);
    // A busy machine takes longer than a service would wait.
    let args = Args { redis_timeout: Some(LONG_TIMEOUT.into()), redis_connect_timeout: LONG_TIMEOUT.into(), ..args };
    let redis = Redis::open(&args, "orders", Role::Cache)?; // connects in the background

    // Never lowers the cached version, also if it runs twice or late.
    let raise = Script::new(
        "
        local version = math.max(ARGV[1], redis.call('GET', KEYS[1]) or 0)
        redis.call('SET', KEYS[1], version, 'PX', ARGV[2])
        return version
    ",
    );
    let mut lane = redis.writer("42").await?;
    let key = lane.key(format_args!("v:42")); // tidings:orders:INCARNATION:v:42
    match lane.write::<i64>(raise.key(&key).arg(7).arg(60_000)).await {
        WriteOutcome::Done(version) => assert_eq!(version, 7),
        WriteOutcome::NotDone(error) | WriteOutcome::Unknown(error) => return Err(error.into()),
    }
    assert_eq!(lane.write::<i64>(raise.key(&key).arg(6).arg(60_000)).await.assume_idempotent()?, 7);

    let version: Option<i64> = redis.reader().await?.send(cmd("GET").arg(&key)).await?;
    assert_eq!(version, Some(7));
    Ok(())
}
