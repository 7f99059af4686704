//! A Redis that goes back: what it has then is of another reign, and no value of it is served.

use redis::Connection;
use tidings_devstack::Proxy;

use crate::contest::{Contestant, Outcome, all_told, races};
use crate::support::{SOON, Users, World, eventually};

races! {
    a_redis_restored_from_an_older_snapshot_serves_no_old_value,
    a_redis_failed_over_to_a_lagging_replica_serves_no_old_value,
}

/// `ada` is changed by one instance, and nobody has yet to tell the cache of it.
async fn change(world: &World, users: &Users) {
    users.rename("ada", "second").await.unwrap();
    let outbox = "SELECT count(*) FROM cache_outbox";
    eventually("nobody will repair it", SOON, async || world.count(outbox).await == 0).await;
}

/// Every instance tells the change, also when the cache is in use again.
async fn expect_the_change(instances: [&Users; 2]) -> Outcome {
    all_told(instances, "ada", Some(2)).await?;
    for users in instances {
        users.cache("ada").await;
    }
    all_told(instances, "ada", Some(2)).await
}

async fn a_redis_restored_from_an_older_snapshot_serves_no_old_value(contestant: Contestant) -> Outcome {
    let world = World::own().await;
    let (here, there) = contestant.two_with(&world, |_| {}).await;
    here.create("ada").await.unwrap();
    there.cache("ada").await;

    redis::cmd("SAVE").exec(&mut world.redis()).unwrap();
    change(&world, &here).await;
    let redis = world.stack().redis();
    redis.kill().await;
    redis.start().await.unwrap();
    assert!(world.cached("ada"), "the snapshot is back");

    expect_the_change([&here, &there]).await
}

async fn a_redis_failed_over_to_a_lagging_replica_serves_no_old_value(contestant: Contestant) -> Outcome {
    let (world, replica) = (World::own().await, World::own().await);
    let (primary, other) = (world.stack().redis().port(), replica.stack().redis().port());
    // The replica's way to its primary, and the services' way to whoever is the primary.
    let link = Proxy::to(([127, 0, 0, 1], primary).into()).await.unwrap();
    let way = Proxy::to(([127, 0, 0, 1], primary).into()).await.unwrap();
    let mut replica = replica.redis();
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(link.port()).exec(&mut replica).unwrap();
    eventually("the replica follows", SOON, async || replicates(&world)).await;
    let through = World { redis_url: format!("redis://127.0.0.1:{}", way.port()), ..world.clone() };
    let (here, there) = contestant.two_with(&through, |_| {}).await;
    here.create("ada").await.unwrap();
    there.cache("ada").await;
    wait_for_replica(&mut world.redis());

    link.refuse();
    change(&world, &here).await;
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec(&mut replica).unwrap();
    let kept: Vec<String> = redis::cmd("KEYS").arg("*:u:{ada}").query(&mut replica).unwrap();
    assert!(!kept.is_empty(), "the replica has the old value");
    way.redirect(([127, 0, 0, 1], other).into());
    way.cut();

    expect_the_change([&here, &there]).await
}

/// Whether the primary has a replica that has got everything.
fn replicates(world: &World) -> bool {
    let info: String = redis::cmd("INFO").arg("replication").query(&mut world.redis()).unwrap();
    info.contains("state=online")
}

/// Waits until the replica has all that was written before.
fn wait_for_replica(redis: &mut Connection) {
    let milliseconds = u64::try_from(SOON.as_millis()).unwrap();
    // The connection is new, so it needs a write of its own to wait for.
    redis::cmd("SET").arg("mark").arg(1).exec(redis).unwrap();
    let acknowledged: u64 = redis::cmd("WAIT").arg(1).arg(milliseconds).query(redis).unwrap();
    assert_eq!(acknowledged, 1);
}
