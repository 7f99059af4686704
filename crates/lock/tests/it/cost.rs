//! Cost of calls in round trips, counted by Redis, with Postgres killed.

use std::time::Instant;

use redis::cmd;
use tidings_devstack::testing::{NEVER, own_stack};

use crate::support::LockFixture;
use crate::support::client::once;
use crate::support::redis::LockRedis;

/// Returns the number of script commands since the last call, and resets the counters.
async fn round_trips(redis: &LockRedis) -> u64 {
    let info: String = redis.run(cmd("INFO").arg("commandstats")).await;
    redis.run::<()>(cmd("CONFIG").arg("RESETSTAT")).await;
    let calls = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let scripts = ["eval", "evalsha", "script|load"].contains(&name);
        scripts.then(|| rest.split(',').next().unwrap().parse::<u64>().unwrap())
    };
    info.lines().filter_map(calls).sum()
}

/// Neither of them uses Postgres.
#[tokio::test]
async fn an_uncontended_acquire_and_release_take_one_round_trip_each() {
    const ROUNDS: u64 = 200;
    let stack = own_stack().await;
    let locks = LockFixture::start_on(&stack, 1, |_, config| {
        config.locks.lock_sweep_tick = NEVER.into();
        config.locks.lock_reread_tick = NEVER.into();
    })
    .await;
    let redis = locks.redis().await;
    let mut hold = locks.take("warm", "up").await; // loads the scripts into Redis
    locks.renew(&mut hold).await.unwrap();
    locks.get("warm").await.unwrap();
    locks.release(&hold).await.unwrap();
    stack.postgres().kill().await;
    round_trips(&redis).await;

    let begin = Instant::now();
    for round in 0..ROUNDS {
        let hold = locks.take(&format!("orders/{round}"), "ada").await;
        locks.release(&hold).await.unwrap();
    }
    // The health probe adds two reads a second.
    let probes = u64::try_from(begin.elapsed().as_millis() / 500).unwrap() + 1;
    let counted = round_trips(&redis).await;
    assert!((2 * ROUNDS..=2 * ROUNDS + probes).contains(&counted), "{counted}");

    let mut hold = locks.take("a", "ada").await;
    locks.renew(&mut hold).await.unwrap();
    locks.check("a", hold.token).await.unwrap();
    locks.get("a").await.unwrap();
    locks.acquire(once("a", "bob")).await.unwrap().held();
    let counted = round_trips(&redis).await;
    assert!((5..=6).contains(&counted), "{counted}");
    drop(locks);
    stack.stop().await;
}
