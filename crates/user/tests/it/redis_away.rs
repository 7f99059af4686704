//! Redis killed, paused, flushed, and restarted from an old snapshot.

use std::time::Duration;

use futures_util::future::join_all;
use tidings_proto::user::batch_get_users_result::Outcome;
use tidings_proto::user::read_info::Source;
use tonic::Code;

use super::costs::{CostRecorder, Costs};
use super::support::{SOON, TestEnv, UserInstance, eventually, named};

const IDS: [&str; 6] = ["ada", "bob", "cleo", "dan", "eve", "nobody"];

/// Compares single and batch reads on both instances with Postgres.
async fn expect_reads_equal_postgres(env: &TestEnv, instances: [&UserInstance; 2]) {
    let rows: Vec<(String, i64, String)> =
        sqlx::query_as("SELECT id, version, display_name FROM user_account WHERE delete_time IS NULL")
            .fetch_all(&mut env.sql().await)
            .await
            .unwrap();
    let stored = |id: &str| rows.iter().find(|row| row.0 == id).map(|row| (row.1, row.2.clone()));
    for users in instances {
        for id in IDS {
            match users.get(id).await {
                Ok(read) => assert_eq!(Some((read.version, read.user.display_name)), stored(id), "{id}"),
                Err(failure) => {
                    assert_eq!(failure.code, Code::NotFound, "{failure}");
                    assert_eq!(stored(id), None, "{id}");
                }
            }
        }
        for result in users.batch(&IDS).await.unwrap() {
            assert_ne!(result.outcome(), Outcome::Unavailable);
            assert_eq!(result.user.map(|user| (user.version, user.display_name)), stored(&result.id), "{}", result.id);
        }
    }
}

async fn expect_cache_used(users: &UserInstance) {
    for id in ["ada", "bob"] {
        users.warm_redis(id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushall_a_crash_and_an_old_snapshot_change_no_answer() {
    let env = TestEnv::own().await;
    let redis = env.stack().redis();
    let (here, there) = (env.serve().await, env.serve().await);
    for id in &IDS[..4] {
        here.create(id).await.unwrap();
    }
    expect_reads_equal_postgres(&env, [&here, &there]).await;
    expect_cache_used(&here).await;

    redis::cmd("FLUSHALL").exec(&mut env.redis()).unwrap();
    expect_reads_equal_postgres(&env, [&here, &there]).await;
    there.rename("ada", "after the flush").await.unwrap();
    expect_reads_equal_postgres(&env, [&here, &there]).await;

    redis.kill().await;
    redis.start().await.unwrap();
    expect_reads_equal_postgres(&env, [&here, &there]).await;
    expect_cache_used(&here).await;
    expect_cache_used(&there).await;

    redis::cmd("SAVE").exec(&mut env.redis()).unwrap();
    here.rename("ada", "after the snapshot").await.unwrap();
    there.delete("bob").await.unwrap();
    here.create("eve").await.unwrap();
    let outbox = "SELECT count(*) FROM cache_outbox";
    eventually("the outbox is empty, so no relay repairs the snapshot", SOON, async || env.count(outbox).await == 0)
        .await;
    redis.kill().await;
    there.rename("cleo", "during the outage").await.unwrap();
    expect_reads_equal_postgres(&env, [&here, &there]).await;
    redis.start().await.unwrap();
    assert!(env.cached("bob"), "the snapshot is restored");
    expect_reads_equal_postgres(&env, [&here, &there]).await;
    eventually("the cache is used again", SOON, async || {
        here.get("ada").await.unwrap().source == Source::Redis
            && there.get("ada").await.unwrap().source == Source::Redis
    })
    .await;
    expect_reads_equal_postgres(&env, [&here, &there]).await;
}

/// Reads and writes: answers are correct and come from Postgres.
async fn expect_service_without_redis(users: &UserInstance, version: i64) {
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
async fn without_redis_answers_are_correct_and_from_postgres() {
    let env = TestEnv::own().await;
    let redis = env.stack().redis();
    let users = env.serve_with(|config| config.redis.redis_timeout = Some(Duration::from_millis(100).into())).await;
    users.create("ada").await.unwrap();
    users.warm_redis("ada").await;

    redis.pause();
    expect_service_without_redis(&users, 1).await;
    redis.resume();
    eventually("the cache is used again, with the new version", SOON, async || {
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
    eventually("the outbox is empty", SOON, async || env.count(outbox).await == 0).await;
}

#[tokio::test]
async fn a_service_starts_and_serves_while_redis_is_unavailable() {
    let env = TestEnv::own().await;
    env.stack().redis().kill().await;
    let users = env.serve().await;

    users.create("ada").await.unwrap();
    assert_eq!(users.get("ada").await.unwrap().source, Source::Postgres);

    env.stack().redis().start().await.unwrap();
    users.warm_redis("ada").await;
}

/// A first replica makes Redis change its replication id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_is_seen_though_redis_changes_its_incarnation() {
    let (env, other) = (TestEnv::own().await, TestEnv::own().await);
    let here = env.serve().await;
    here.create("ada").await.unwrap();
    here.warm_redis("ada").await;

    // No client is disconnected. New connections see another incarnation at once, existing ones
    // half a second later.
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(env.stack().redis().port()).exec(&mut other.redis()).unwrap();
    let there = env.serve().await;
    there.warm_redis("ada").await;
    here.rename("ada", "Ada King").await.unwrap();

    eventually("both instances see the update", SOON, async || {
        let (here, there) = (here.get("ada").await.unwrap(), there.get("ada").await.unwrap());
        [here, there].iter().all(|read| read.user.display_name == "Ada King")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_is_seen_though_redis_is_out_of_memory() {
    let env = TestEnv::own().await;
    let (here, there) = (env.serve().await, env.serve().await);
    here.create("ada").await.unwrap();
    there.warm_redis("ada").await;

    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).exec(&mut env.redis()).unwrap();
    here.rename("ada", "Ada King").await.unwrap();

    eventually("the other instance sees the update", SOON, async || {
        there.get("ada").await.unwrap().user.display_name == "Ada King"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unapplied_update_is_seen_at_once_by_its_instance() {
    let env = TestEnv::own().await;
    let (here, there) = (env.serve().await, env.serve().await);
    here.create("ada").await.unwrap();
    here.warm_redis("ada").await;
    let set_permission =
        |rule: &str| redis::cmd("ACL").arg("SETUSER").arg("default").arg(rule).exec(&mut env.redis()).unwrap();

    set_permission("-evalsha");
    here.rename("ada", "Ada King").await.unwrap();
    // Until both notice that the permission is missing, and read Postgres.
    assert_eq!(there.get("ada").await.unwrap().version, 1, "another instance still uses the cache");
    for _ in 0..20 {
        assert_eq!(here.get("ada").await.unwrap().version, 2);
        assert_eq!(here.batch(&["ada"]).await.unwrap()[0].user.as_ref().unwrap().version, 2);
    }
    set_permission("+evalsha");

    eventually("the other instance sees the update", SOON, async || there.get("ada").await.unwrap().version == 2).await;
    eventually("the instance uses the cache again", SOON, async || {
        here.get("ada").await.unwrap().source == Source::Redis
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_readers_of_one_user_share_postgres_reads() {
    const READERS: usize = 200;
    let env = TestEnv::own().await;
    let users = env.serve_without_relay().await;
    users.create("ada").await.unwrap();
    env.stack().redis().kill().await;
    for _ in 0..10 {
        users.get("ada").await.unwrap(); // until the outage is noticed
    }

    for read in join_all((0..READERS).map(|_| users.get("ada"))).await {
        assert_eq!(read.unwrap().source, Source::Postgres);
    }

    users.stop().await;
    let scans = env.account_scans().await - 1 - 10;
    assert!(scans <= 20, "{scans} scans for {READERS} readers");
}

#[tokio::test]
async fn after_a_long_outage_the_relay_unlinks_users_in_bulk() {
    const CHANGES: usize = 2500;
    let (env, metrics) = (TestEnv::own().await, CostRecorder::default());
    let costs = Costs::count(&env, &metrics);
    let users = env.serve_without_relay().await;
    for id in ["ada", "bob"] {
        users.create(id).await.unwrap();
        users.warm_redis(id).await;
    }
    env.execute("DELETE FROM cache_outbox").await;
    // Changes that were not applied to the cache.
    env.execute("UPDATE user_account SET version = 2 WHERE id = 'ada'").await;
    env.execute(&format!(
        "INSERT INTO cache_outbox (user_id) SELECT 'nobody-' || number FROM generate_series(1, {CHANGES}) AS number \
             UNION ALL SELECT 'ada'"
    ))
    .await;
    costs.spent().await;

    let _relaying = env.serve().await;
    let outbox = "SELECT count(*) FROM cache_outbox";
    eventually("the outbox is empty", SOON, async || env.count(outbox).await == 0).await;

    assert_eq!(costs.spent().await.round_trips, 3, "one for each thousand changes");
    assert_eq!(users.get("ada").await.unwrap().version, 2);
    assert_eq!(users.get("bob").await.unwrap().source, Source::Redis, "an unchanged user is not unlinked");
}
