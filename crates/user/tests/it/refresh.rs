//! Refreshes of profiles past their soft TTL.

use std::time::Duration;

use tidings_proto::user::read_info::Source;

use super::support::{SOON, TestEnv, eventually};

/// A change that bypasses the caches.
const DIRECT_UPDATE: &str = "UPDATE user_account SET version = version + 1, display_name = 'direct'";

#[tokio::test]
async fn a_profile_past_its_soft_ttl_is_served_and_refreshed() {
    let env = TestEnv::shared().await;
    let users = env.serve_with(|config| config.cache.user_soft_ttl = Duration::from_millis(100).into()).await;
    users.create("ada").await.unwrap();
    users.warm_redis("ada").await;
    env.execute(DIRECT_UPDATE).await;

    eventually("the profile is refreshed", SOON, async || {
        let read = users.get("ada").await.unwrap();
        assert_eq!(read.source, Source::Redis, "no reader waits for Postgres");
        read.version == 2
    })
    .await;
    env.execute(DIRECT_UPDATE).await;
    eventually("a batch refreshes it, too", SOON, async || {
        let result = users.batch(&["ada"]).await.unwrap().remove(0);
        assert_eq!(result.read_info.unwrap().source(), Source::Redis);
        result.user.unwrap().version == 3
    })
    .await;
}

#[tokio::test]
async fn a_profile_past_its_soft_ttl_is_refreshed_once() {
    let env = TestEnv::shared().await;
    let users = env.serve_with(|config| config.cache.user_soft_ttl = Duration::from_secs(2).into()).await;
    users.create("ada").await.unwrap();
    eventually("the outbox is empty", SOON, async || env.outbox("ada").await == 0).await; // its scan is counted below
    users.warm_redis("ada").await;
    tokio::time::sleep(Duration::from_millis(2400)).await; // past the soft TTL and its jitter

    for _ in 0..200 {
        assert_eq!(users.get("ada").await.unwrap().source, Source::Redis);
    }
    users.stop().await;

    let scans = env.account_scans().await;
    assert!((3..=5).contains(&scans), "creation, relay, first read, one refresh: {scans}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_past_its_soft_ttl_stays_without_postgres() {
    let env = TestEnv::own().await;
    let users = env
        .serve_with(|config| {
            config.postgres.postgres_acquire_timeout = Duration::from_millis(600).into();
            config.cache.user_soft_ttl = Duration::from_millis(1).into();
        })
        .await;
    users.create("ada").await.unwrap();
    users.warm_redis("ada").await;

    env.stack().postgres().kill().await;
    eventually("the answer is stale", SOON, async || users.get("ada").await.unwrap().stale).await;
    for _ in 0..100 {
        assert_eq!(users.get("ada").await.unwrap().source, Source::Redis);
    }
    env.stack().postgres().start().await.unwrap();

    eventually("the answer is not stale", SOON, async || !users.get("ada").await.unwrap().stale).await;
    env.execute(DIRECT_UPDATE).await;
    eventually("the profile is refreshed", SOON, async || users.get("ada").await.unwrap().version == 2).await;
}
