//! Freshness of reads after writes, also of other instances.

use std::time::Duration;

use tidings_proto::user::read_info::Source;
use tonic::Code;

use super::support::{SOON, TestEnv, UserInstance, eventually, into_result, no_relay};

#[tokio::test]
async fn an_applied_update_is_seen_by_the_next_read_anywhere() {
    let env = TestEnv::shared().await;
    let here = env.serve_without_relay().await;
    let there = env.serve_without_relay().await;
    here.create("ada").await.unwrap();
    here.warm_redis("ada").await;

    for version in 2..=20 {
        let written = here.rename("ada", &format!("name {version}")).await.unwrap();
        for users in [&there, &here] {
            let read = users.get("ada").await.unwrap();
            assert_eq!((read.version, &read.user.display_name), (version, &written.display_name));
            assert_eq!(read.source, Source::Redis); // the write replaced the value instead of deleting it
        }
    }
    here.delete("ada").await.unwrap();
    assert_eq!(there.get("ada").await.unwrap_err().reason, "USER_NOT_FOUND");
    assert_eq!(here.get("ada").await.unwrap_err().reason, "USER_NOT_FOUND");
}

/// Starts an instance that cannot reach Redis.
async fn cut_off(env: &TestEnv) -> UserInstance {
    let nowhere = TestEnv { redis_url: "redis://127.0.0.1:1".to_owned(), ..env.clone() };
    nowhere
        .serve_with(|config| {
            config.redis.redis_timeout = Some(Duration::from_millis(20).into());
            no_relay(config);
        })
        .await
}

#[tokio::test]
async fn an_unapplied_update_is_seen_within_one_relay_tick() {
    let env = TestEnv::shared().await;
    let reader = env.serve_without_relay().await;
    let writer = cut_off(&env).await;
    reader.create("ada").await.unwrap();
    reader.warm_redis("ada").await;

    writer.rename("ada", "second").await.unwrap();
    assert_eq!(reader.get("ada").await.unwrap().version, 1, "the write is not applied yet");
    assert!(env.outbox("ada").await > 0);

    let _relaying = env.serve().await;
    eventually("the relay has applied the write", Duration::from_secs(2), async || {
        reader.get("ada").await.unwrap().version == 2
    })
    .await;
    eventually("the outbox is empty", SOON, async || env.outbox("ada").await == 0).await;
}

#[tokio::test]
async fn an_update_is_seen_at_once_by_a_read_with_min_version() {
    let env = TestEnv::shared().await;
    let reader = env.serve_without_relay().await;
    let writer = cut_off(&env).await;
    reader.create("ada").await.unwrap();
    reader.warm_redis("ada").await;

    let written = writer.rename("ada", "second").await.unwrap();
    assert_eq!(reader.get("ada").await.unwrap().version, 1);
    assert_eq!(reader.get_strong("ada").await.unwrap().version, 2);
    let read = reader.get_at_least("ada", written.version).await.unwrap();

    assert_eq!((read.version, read.user.display_name.as_str()), (2, "second"));
    let read = reader.get("ada").await.unwrap();
    assert_eq!((read.version, read.source), (2, Source::Redis), "the read applied what it found");
}

#[tokio::test]
async fn a_min_version_above_postgres_fails_with_the_current_one() {
    let users = UserInstance::start().await;
    users.create("ada").await.unwrap();

    for _cold_then_cached in 0..2 {
        let refused = users.get_at_least("ada", 2).await.unwrap_err();
        assert_eq!((refused.code, refused.reason.as_str()), (Code::FailedPrecondition, "VERSION_AHEAD"));
        assert_eq!(refused.metadata["version"], "1");
        users.warm_redis("ada").await;
    }
    assert_eq!(users.get_at_least("nobody", 2).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn repeated_reads_of_an_unknown_id_read_postgres_once() {
    let env = TestEnv::shared().await;
    let before = env.account_scans().await;
    let users = env.serve().await;

    for _ in 0..100 {
        assert_eq!(users.get("nobody").await.unwrap_err().reason, "USER_NOT_FOUND");
    }
    users.stop().await;

    let scans = env.account_scans().await - before;
    assert_eq!(scans, 1, "only the first read scans");
}

#[tokio::test]
async fn concurrent_cold_reads_on_two_instances_read_postgres_once() {
    let env = TestEnv::shared().await;
    let patient = |config: &mut tidings_user::Config| {
        config.cache.user_fill_wait = SOON.into();
        config.redis.redis_timeout = Some(SOON.into());
        config.cache.user_lease_ttl = SOON.into();
    };
    let (here, there) = (env.serve_with(patient).await, env.serve_with(patient).await);
    let insert = "INSERT INTO user_account (id, handle, display_name, avatar_uri, bio, attributes, version) \
                VALUES ('ada', '', 'Ada', '', '', '{}', 1)";
    env.execute(insert).await;
    let before = env.count("SELECT idx_scan + seq_scan FROM pg_stat_user_tables WHERE relname = 'user_account'").await;

    let reads: Vec<_> = (0..200)
        .map(|number| {
            let mut client = if number % 2 == 0 { here.client() } else { there.client() };
            let request = tidings_proto::user::GetUserRequest { id: "ada".to_owned(), ..Default::default() };
            tokio::spawn(async move { into_result(client.get_user(request).await) })
        })
        .collect();
    for read in reads {
        assert_eq!(read.await.unwrap().unwrap().user.unwrap().display_name, "Ada");
    }
    here.stop().await;
    there.stop().await;

    assert_eq!(env.account_scans().await - before, 1);
}

#[tokio::test]
async fn a_user_created_after_a_miss_is_seen_at_once_everywhere() {
    let env = TestEnv::shared().await;
    let here = env.serve_without_relay().await;
    let there = env.serve_without_relay().await;
    for users in [&here, &there] {
        assert_eq!(users.get("ada").await.unwrap_err().code, Code::NotFound);
    }
    assert!(env.cached("ada"), "absence is cached");

    here.create("ada").await.unwrap();

    assert_eq!(here.get("ada").await.unwrap().version, 1);
    assert_eq!(there.get("ada").await.unwrap().version, 1);
    assert_eq!(there.batch(&["ada"]).await.unwrap()[0].user.as_ref().unwrap().version, 1);
}

#[tokio::test]
async fn a_value_of_an_unknown_format_is_kept_and_postgres_answers() {
    let env = TestEnv::shared().await;
    let users = env.serve_with(|config| config.cache.user_fill_wait = SOON.into()).await;
    users.create("ada").await.unwrap();
    users.warm_redis("ada").await;
    let key = &env.keys("u", "ada")[0];
    let newer = [&[9][..], &1_u64.to_be_bytes(), &[0; 40]].concat();
    redis::cmd("SET").arg(key).arg(&newer).exec(&mut env.redis()).unwrap();

    let begun = std::time::Instant::now();
    let read = users.get("ada").await.unwrap();

    assert_eq!((read.version, read.source), (1, Source::Postgres));
    assert!(begun.elapsed() < SOON, "the reader does not wait for a fill");
    let kept: Vec<u8> = redis::cmd("GET").arg(key).query(&mut env.redis()).unwrap();
    assert_eq!(kept, newer);
    assert_eq!(users.rename("ada", "second").await.unwrap().version, 2);
    assert_eq!(users.get("ada").await.unwrap().source, Source::Redis, "a newer version replaces it");
}

#[tokio::test]
async fn garbage_under_a_key_does_not_stop_the_relay() {
    let env = TestEnv::shared().await;
    let users = env.serve().await;
    users.create("ada").await.unwrap();
    users.warm_redis("ada").await;
    redis::cmd("SET").arg(&env.keys("u", "ada")[0]).arg("?").exec(&mut env.redis()).unwrap();

    users.rename("ada", "second").await.unwrap();

    eventually("the outbox is empty", SOON, async || env.outbox("ada").await == 0).await;
    assert_eq!(users.get("ada").await.unwrap().version, 2);
}

#[tokio::test]
async fn a_write_wakes_the_relay_of_its_own_instance() {
    let env = TestEnv::shared().await;
    let users = env
        .serve_with(|config| {
            no_relay(config);
            config.cache.user_relay_gather = Duration::from_millis(10).into();
        })
        .await;

    users.create("ada").await.unwrap();

    eventually("the write is relayed before a tick", SOON, async || env.outbox("ada").await == 0).await;
}
