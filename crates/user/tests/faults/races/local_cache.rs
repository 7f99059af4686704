//! Races of the local cache: missing invalidations, and invalidations at the worst moment.
//!
//! The naive cache has no local cache, so these races have no twin. They were verified by mutation:
//! each fails if the step that it covers is removed from the code.

use std::time::Duration;

use fail::FailScenario;
use tidings_devstack::Proxy;
use tidings_devstack::testing::FailPointPause;
use tidings_proto::user::read_info::Source;
use tidings_user::Config;

use super::{reading, writing};
use crate::BEFORE_APPLY;
use crate::support::{NEVER, SOON, TestEnv, UserInstance, eventually, no_relay};

/// Between the reply of Redis and its insertion into the local cache.
const BEFORE_LOCAL_CACHE: &str = "user::before_local_cache";

/// Keeps entries in the local cache until they are invalidated, and disables the relay.
fn lasting(config: &mut Config) {
    no_relay(config);
    config.cache.user_local_cache_ttl = NEVER.into();
}

/// Starts an instance that writes, and one with a local cache; `ada` is in Redis.
async fn writer_and_reader(env: &TestEnv) -> (UserInstance, UserInstance) {
    let (writer, reader) = (env.serve_without_relay().await, env.serve_from_local_cache_with(lasting).await);
    writer.create("ada").await.unwrap();
    writer.warm_redis("ada").await;
    (writer, reader)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reply_invalidated_in_transit_is_not_cached() {
    let _scenario = FailScenario::setup();
    let env = TestEnv::shared().await;
    let (writer, reader) = writer_and_reader(&env).await;
    writer.create("mark").await.unwrap();
    reader.warm_local_cache("mark").await;

    let held = FailPointPause::first_at(BEFORE_LOCAL_CACHE);
    let slow = reading(&reader);
    held.reached().await;
    writer.rename("ada", "second").await.unwrap();
    // Invalidations arrive in order: after that of `mark`, that of `ada` has arrived, too.
    writer.rename("mark", "second").await.unwrap();
    eventually("the invalidation has arrived", SOON, async || reader.get("mark").await.unwrap().version == 2).await;
    held.resume();

    assert_eq!(slow.await.unwrap(), Some(1), "the version read before the update");
    assert_eq!(reader.get("ada").await.unwrap().version, 2);
    reader.warm_local_cache("ada").await;
    assert_eq!(reader.get("ada").await.unwrap().version, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reply_older_than_a_local_write_is_not_cached() {
    let _scenario = FailScenario::setup();
    let env = TestEnv::shared().await;
    let users = env.serve_from_local_cache_with(lasting).await;
    users.create("ada").await.unwrap();
    users.get("ada").await.unwrap();

    let held = FailPointPause::first_at(BEFORE_LOCAL_CACHE);
    let slow = reading(&users);
    held.reached().await;
    users.rename("ada", "second").await.unwrap();
    held.resume();

    assert_eq!(slow.await.unwrap(), Some(1));
    assert_eq!(users.get("ada").await.unwrap().version, 2, "at once, independently of invalidations");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn losing_the_tracking_connection_clears_the_local_cache() {
    let _scenario = FailScenario::setup();
    let env = TestEnv::own().await;
    let (writer, reader) = writer_and_reader(&env).await;
    reader.warm_local_cache("ada").await;

    // Redis kills the connection and deletes the value in one step, so it cannot send the
    // invalidation.
    let held = FailPointPause::first_at(BEFORE_APPLY);
    let paused = writing(&writer, "second");
    held.reached().await;
    let mut cut = redis::pipe();
    cut.atomic();
    for client in tracking(&env) {
        cut.cmd("CLIENT").arg("KILL").arg("ID").arg(client);
    }
    for key in env.keys("u", "ada") {
        cut.del(key);
    }
    let _: Vec<u64> = cut.query(&mut env.redis()).unwrap();
    held.resume();
    assert_eq!(paused.await.unwrap(), 2);

    eventually("the local cache is empty", SOON, async || reader.get("ada").await.unwrap().version == 2).await;
    reader.warm_local_cache("ada").await;
    assert_eq!(reader.get("ada").await.unwrap().version, 2, "the next session has started without the old entry");
    writer.rename("ada", "third").await.unwrap();
    eventually("the invalidation has arrived", SOON, async || reader.get("ada").await.unwrap().version == 3).await;
}

/// Returns the ids of the connections with tracking.
fn tracking(env: &TestEnv) -> Vec<u64> {
    let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut env.redis()).unwrap();
    let field = |line: &str, name: &str| line.split(' ').find_map(|field| Some(field.strip_prefix(name)?.to_owned()));
    let tracks = |line: &&str| field(line, "flags=").is_some_and(|flags| flags.contains('t'));
    let ids: Vec<u64> = list.lines().filter(tracks).map(|line| field(line, "id=").unwrap().parse().unwrap()).collect();
    assert!(!ids.is_empty(), "{list}");
    ids
}

/// It is used again, with correct entries, once Redis answers. In the first round Redis is silent,
/// in the second it refuses connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_local_cache_is_bypassed_while_redis_does_not_answer() {
    let _scenario = FailScenario::setup();
    for silent in [true, false] {
        let env = TestEnv::shared().await;
        let proxy = Proxy::to(([127, 0, 0, 1], env.stack().redis().port()).into()).await.unwrap();
        let through = TestEnv { redis_url: format!("redis://127.0.0.1:{}", proxy.port()), ..env.clone() };
        let writer = env.serve_without_relay().await;
        let reader = through.serve_from_local_cache_with(lasting).await;
        writer.create("ada").await.unwrap();
        reader.warm_local_cache("ada").await;

        if silent {
            proxy.blackhole();
        } else {
            proxy.refuse();
        }
        writer.rename("ada", "second").await.unwrap();
        let bypassed = Duration::from_secs(5);
        eventually("the local cache is bypassed", bypassed, async || {
            let read = reader.get("ada").await.unwrap();
            assert_ne!((read.source, read.version), (Source::Redis, 1), "Redis has version 2");
            read.version == 2
        })
        .await;
        assert_eq!(reader.get("ada").await.unwrap().source, Source::Postgres);
        proxy.heal();

        reader.warm_local_cache("ada").await;
        assert_eq!(reader.get("ada").await.unwrap().version, 2);
        writer.rename("ada", "third").await.unwrap();
        eventually("invalidations arrive again", SOON, async || reader.get("ada").await.unwrap().version == 3).await;
    }
}

/// The write may be committed. No relay runs, so Redis sends no invalidation.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_write_of_unknown_outcome_clears_the_local_cache() {
    let _scenario = FailScenario::setup();
    let env = TestEnv::shared().await;
    let users = env.serve_from_local_cache_with(lasting).await;
    users.create("ada").await.unwrap();

    for point in ["user::after_update", "user::after_delete"] {
        users.warm_local_cache("ada").await;
        fail::cfg(point, "return").unwrap();
        match point {
            "user::after_update" => drop(users.rename("ada", "second").await.unwrap_err()),
            _ => drop(users.delete("ada").await.unwrap_err()),
        }
        fail::remove(point);
        assert_eq!(users.get("ada").await.unwrap().source, Source::Redis, "{point}");
    }
}
