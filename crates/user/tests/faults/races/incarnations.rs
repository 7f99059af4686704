//! A Redis that goes back to older data: the data belongs to another incarnation, and none of it is
//! served.

use redis::Connection;
use tidings_devstack::Proxy;

use crate::contest::{Contestant, RaceVerdict, check_version, races};
use crate::support::{SOON, TestEnv, UserInstance, eventually};

races! {
    a_redis_restored_from_an_older_snapshot_serves_no_old_value,
    a_redis_failed_over_to_a_lagging_replica_serves_no_old_value,
}

/// Updates `ada` and waits until no outbox row is left that could repair the cache.
async fn update_and_relay(env: &TestEnv, users: &UserInstance) {
    users.rename("ada", "second").await.unwrap();
    let outbox = "SELECT count(*) FROM cache_outbox";
    eventually("the outbox is empty", SOON, async || env.count(outbox).await == 0).await;
}

/// Checks the update on both instances, also when the cache is in use again.
async fn check_update(instances: [&UserInstance; 2]) -> RaceVerdict {
    check_version(instances, "ada", Some(2)).await?;
    for users in instances {
        users.warm_redis("ada").await;
    }
    check_version(instances, "ada", Some(2)).await
}

async fn a_redis_restored_from_an_older_snapshot_serves_no_old_value(contestant: Contestant) -> RaceVerdict {
    let env = TestEnv::own().await;
    let (here, there) = contestant.two_with(&env, |_| {}).await;
    here.create("ada").await.unwrap();
    there.warm_redis("ada").await;

    redis::cmd("SAVE").exec(&mut env.redis()).unwrap();
    update_and_relay(&env, &here).await;
    let redis = env.stack().redis();
    redis.kill().await;
    redis.start().await.unwrap();
    assert!(env.cached("ada"), "the snapshot is restored");

    check_update([&here, &there]).await
}

async fn a_redis_failed_over_to_a_lagging_replica_serves_no_old_value(contestant: Contestant) -> RaceVerdict {
    let (env, replica) = (TestEnv::own().await, TestEnv::own().await);
    let (primary, other) = (env.stack().redis().port(), replica.stack().redis().port());
    // One proxy between the replica and its primary, one between the services and the current
    // primary.
    let link = Proxy::to(([127, 0, 0, 1], primary).into()).await.unwrap();
    let proxy = Proxy::to(([127, 0, 0, 1], primary).into()).await.unwrap();
    let mut replica = replica.redis();
    // The default of 5 s only saves work with several replicas.
    redis::cmd("CONFIG").arg("SET").arg("repl-diskless-sync-delay").arg(0).exec(&mut env.redis()).unwrap();
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(link.port()).exec(&mut replica).unwrap();
    eventually("the replica follows", SOON, async || has_replica(&env)).await;
    let through = TestEnv { redis_url: format!("redis://127.0.0.1:{}", proxy.port()), ..env.clone() };
    let (here, there) = contestant.two_with(&through, |_| {}).await;
    here.create("ada").await.unwrap();
    there.warm_redis("ada").await;
    wait_for_replica(&mut env.redis());

    link.refuse();
    update_and_relay(&env, &here).await;
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec(&mut replica).unwrap();
    let kept: Vec<String> = redis::cmd("KEYS").arg("*:u:{ada}").query(&mut replica).unwrap();
    assert!(!kept.is_empty(), "the replica has the old value");
    proxy.redirect(([127, 0, 0, 1], other).into());
    proxy.cut();

    check_update([&here, &there]).await
}

/// Returns true if the primary has a replica in sync.
fn has_replica(env: &TestEnv) -> bool {
    let info: String = redis::cmd("INFO").arg("replication").query(&mut env.redis()).unwrap();
    info.contains("state=online")
}

/// Waits until the replica has all earlier writes.
fn wait_for_replica(redis: &mut Connection) {
    let milliseconds = u64::try_from(SOON.as_millis()).unwrap();
    // WAIT covers the writes of its own connection only.
    redis::cmd("SET").arg("mark").arg(1).exec(redis).unwrap();
    let acknowledged: u64 = redis::cmd("WAIT").arg(1).arg(milliseconds).query(redis).unwrap();
    assert_eq!(acknowledged, 1);
}
