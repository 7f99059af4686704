//! Redis killed, stopped, emptied, and come back with yesterday's data.

use std::time::Duration;

use futures_util::future::join_all;
use tidings_proto::user::batch_get_users_result::Outcome;
use tidings_proto::user::read_info::Source;
use tonic::Code;

use super::costs::{Costs, Numbers};
use super::support::{SOON, Users, World, eventually, named};

const IDS: [&str; 6] = ["ada", "bob", "cleo", "dan", "eve", "nobody"];

/// Compares every way to read with Postgres.
async fn expect_truth(world: &World, instances: [&Users; 2]) {
    let rows: Vec<(String, i64, String)> =
        sqlx::query_as("SELECT id, version, display_name FROM user_account WHERE delete_time IS NULL")
            .fetch_all(&mut world.sql().await)
            .await
            .unwrap();
    let truth = |id: &str| rows.iter().find(|row| row.0 == id).map(|row| (row.1, row.2.clone()));
    for users in instances {
        for id in IDS {
            match users.get(id).await {
                Ok(read) => assert_eq!(Some((read.version, read.user.display_name)), truth(id), "{id}"),
                Err(failure) => {
                    assert_eq!(failure.code, Code::NotFound, "{failure}");
                    assert_eq!(truth(id), None, "{id}");
                }
            }
        }
        for result in users.batch(&IDS).await.unwrap() {
            assert_ne!(result.outcome(), Outcome::Unavailable);
            assert_eq!(result.user.map(|user| (user.version, user.display_name)), truth(&result.id), "{}", result.id);
        }
    }
}

async fn expect_cache_used(users: &Users) {
    for id in ["ada", "bob"] {
        users.cache(id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushall_kill_and_an_old_snapshot_of_redis_change_no_answer() {
    let world = World::own().await;
    let redis = world.stack().redis();
    let (here, there) = (world.serve().await, world.serve().await);
    for id in &IDS[..4] {
        here.create(id).await.unwrap();
    }
    expect_truth(&world, [&here, &there]).await;
    expect_cache_used(&here).await;

    redis::cmd("FLUSHALL").exec(&mut world.redis()).unwrap();
    expect_truth(&world, [&here, &there]).await;
    there.rename("ada", "after the flush").await.unwrap();
    expect_truth(&world, [&here, &there]).await;

    redis.kill().await;
    redis.start().await.unwrap();
    expect_truth(&world, [&here, &there]).await;
    expect_cache_used(&here).await;
    expect_cache_used(&there).await;

    redis::cmd("SAVE").exec(&mut world.redis()).unwrap();
    here.rename("ada", "after the snapshot").await.unwrap();
    there.delete("bob").await.unwrap();
    here.create("eve").await.unwrap();
    let outbox = "SELECT count(*) FROM cache_outbox";
    eventually("nobody will repair the snapshot", SOON, async || world.count(outbox).await == 0).await;
    redis.kill().await;
    there.rename("cleo", "while it was away").await.unwrap();
    expect_truth(&world, [&here, &there]).await;
    redis.start().await.unwrap();
    assert!(world.cached("bob"), "the snapshot is back");
    expect_truth(&world, [&here, &there]).await;
    eventually("the cache is used again", SOON, async || {
        here.get("ada").await.unwrap().source == Source::Redis
            && there.get("ada").await.unwrap().source == Source::Redis
    })
    .await;
    expect_truth(&world, [&here, &there]).await;
}

/// Reads and writes, with right answers and all of them from Postgres.
async fn expect_service_without_redis(users: &Users, version: i64) {
    let read = users.get("ada").await.unwrap();
    assert_eq!((read.version, read.source, read.stale), (version, Source::Postgres, false));
    let results = users.batch(&["ada", "nobody"]).await.unwrap();
    assert_eq!(results[0].user.as_ref().unwrap().version, version);
    assert_eq!(results[0].read_info.unwrap().source(), Source::Postgres);
    assert_eq!(results[1].outcome(), Outcome::NotFound);
    assert_eq!(users.get("nobody").await.unwrap_err().reason, "USER_NOT_FOUND");

    let changed = users.rename("ada", &format!("name {}", version + 1)).await.unwrap();
    assert_eq!(changed.version, version + 1);
    assert_eq!(users.get("ada").await.unwrap().user, changed);
    let id = format!("new-{version}");
    users.create(&id).await.unwrap();
    assert_eq!(users.get(&id).await.unwrap().user.display_name, named("", "first").display_name);
    users.delete(&id).await.unwrap();
    assert_eq!(users.get(&id).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_away_is_slower_not_wrong() {
    let world = World::own().await;
    let redis = world.stack().redis();
    let users = world.serve_with(|config| config.redis.redis_timeout = Some(Duration::from_millis(100).into())).await;
    users.create("ada").await.unwrap();
    users.cache("ada").await;

    redis.pause();
    expect_service_without_redis(&users, 1).await;
    redis.resume();
    eventually("the cache is used again, and has heard of the change", SOON, async || {
        let read = users.get("ada").await.unwrap();
        read.source == Source::Redis && read.version == 2
    })
    .await;

    redis.kill().await;
    expect_service_without_redis(&users, 2).await;
    redis.start().await.unwrap();
    eventually("the cache is used again", SOON, async || {
        let read = users.get("ada").await.unwrap();
        assert_eq!(read.version, 3);
        read.source == Source::Redis
    })
    .await;
    let outbox = "SELECT count(*) FROM cache_outbox";
    eventually("the relay is done", SOON, async || world.count(outbox).await == 0).await;
}

#[tokio::test]
async fn a_service_starts_and_serves_while_redis_is_away() {
    let world = World::own().await;
    world.stack().redis().kill().await;
    let users = world.serve().await;

    users.create("ada").await.unwrap();
    assert_eq!(users.get("ada").await.unwrap().source, Source::Postgres);

    world.stack().redis().start().await.unwrap();
    users.cache("ada").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_is_seen_though_a_replica_makes_redis_begin_another_reign() {
    let (world, other) = (World::own().await, World::own().await);
    let here = world.serve().await;
    here.create("ada").await.unwrap();
    here.cache("ada").await;

    // No client is disconnected; whoever connects from now on finds another reign, and others do half a second later.
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(world.stack().redis().port()).exec(&mut other.redis()).unwrap();
    let there = world.serve().await;
    there.cache("ada").await;
    here.rename("ada", "Ada King").await.unwrap();

    eventually("both see it", SOON, async || {
        let (here, there) = (here.get("ada").await.unwrap(), there.get("ada").await.unwrap());
        [here, there].iter().all(|read| read.user.display_name == "Ada King")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_is_seen_though_redis_takes_no_writes() {
    let world = World::own().await;
    let (here, there) = (world.serve().await, world.serve().await);
    here.create("ada").await.unwrap();
    there.cache("ada").await;

    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).exec(&mut world.redis()).unwrap();
    here.rename("ada", "Ada King").await.unwrap();

    eventually("the other sees it", SOON, async || there.get("ada").await.unwrap().user.display_name == "Ada King")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_the_cache_was_not_told_is_seen_at_once_by_the_instance_that_made_it() {
    let world = World::own().await;
    let (here, there) = (world.serve().await, world.serve().await);
    here.create("ada").await.unwrap();
    here.cache("ada").await;
    let scripts =
        |may: &str| redis::cmd("ACL").arg("SETUSER").arg("default").arg(may).exec(&mut world.redis()).unwrap();

    scripts("-evalsha");
    here.rename("ada", "Ada King").await.unwrap();
    for _ in 0..20 {
        assert_eq!(here.get("ada").await.unwrap().version, 2);
        assert_eq!(here.batch(&["ada"]).await.unwrap()[0].user.as_ref().unwrap().version, 2);
    }
    assert_eq!(there.get("ada").await.unwrap().version, 1, "who can not know asks the cache");
    scripts("+evalsha");

    eventually("the other sees it", SOON, async || there.get("ada").await.unwrap().version == 2).await;
    eventually("the cache is asked again", SOON, async || here.get("ada").await.unwrap().source == Source::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_many_who_read_one_user_share_their_looks_into_postgres() {
    const READERS: usize = 200;
    let world = World::own().await;
    let users = world.serve_without_relay().await;
    users.create("ada").await.unwrap();
    world.stack().redis().kill().await;
    for _ in 0..10 {
        users.get("ada").await.unwrap(); // it is noticed
    }

    for read in join_all((0..READERS).map(|_| users.get("ada"))).await {
        assert_eq!(read.unwrap().source, Source::Postgres);
    }

    users.stop().await;
    let looks = world.looks_at_accounts().await - 1 - 10;
    assert!(looks <= 40, "{looks} looks for {READERS} readers");
}

#[tokio::test]
async fn after_a_long_outage_the_relay_forgets_users_by_the_thousand() {
    const CHANGES: usize = 2500;
    let (world, numbers) = (World::own().await, Numbers::default());
    let costs = Costs::count(&world, &numbers);
    let users = world.serve_without_relay().await;
    for id in ["ada", "bob"] {
        users.create(id).await.unwrap();
        users.cache(id).await;
    }
    world.execute("DELETE FROM cache_outbox").await;
    // Changes of which the cache could not be told.
    world.execute("UPDATE user_account SET version = 2 WHERE id = 'ada'").await;
    world
        .execute(&format!(
            "INSERT INTO cache_outbox (user_id) SELECT 'nobody-' || number FROM generate_series(1, {CHANGES}) AS number \
             UNION ALL SELECT 'ada'"
        ))
        .await;
    costs.spent().await;

    let _relaying = world.serve().await;
    let outbox = "SELECT count(*) FROM cache_outbox";
    eventually("the relay is done", SOON, async || world.count(outbox).await == 0).await;

    assert_eq!(costs.spent().await.round_trips, 3, "for a thousand changes each");
    assert_eq!(users.get("ada").await.unwrap().version, 2);
    assert_eq!(users.get("bob").await.unwrap().source, Source::Redis, "who did not change is not forgotten");
}
