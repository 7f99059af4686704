//! The local cache of an instance: hits, invalidation, and outages.

use std::time::Duration;

use tidings_proto::user::batch_get_users_result::Outcome;
use tidings_proto::user::read_info::Source;
use tonic::Code;

use super::support::{SOON, TestEnv, eventually};

/// The other instance answers from its local cache until Redis invalidates it.
#[tokio::test]
async fn an_update_is_seen_at_once_by_its_instance_and_soon_by_others() {
    let env = TestEnv::shared().await;
    let (here, there) = (env.serve_from_local_cache().await, env.serve_from_local_cache().await);
    here.create("ada").await.unwrap();

    for version in 2..=20 {
        here.warm_local_cache("ada").await;
        there.warm_local_cache("ada").await;
        here.rename("ada", &format!("name {version}")).await.unwrap();
        assert_eq!(here.get("ada").await.unwrap().version, version);
        eventually("the other instance sees it", SOON, async || there.get("ada").await.unwrap().version == version)
            .await;
    }
    here.delete("ada").await.unwrap();
    assert_eq!(here.get("ada").await.unwrap_err().code, Code::NotFound);
    eventually("the other instance sees it", SOON, async || there.get("ada").await.is_err()).await;
}

#[tokio::test]
async fn the_local_cache_never_serves_less_than_min_version() {
    let env = TestEnv::shared().await;
    let (here, there) = (env.serve_from_local_cache().await, env.serve_from_local_cache().await);
    here.create("ada").await.unwrap();

    for _ in 0..50 {
        there.warm_local_cache("ada").await;
        let written = here.rename("ada", "another").await.unwrap();
        let read = there.get_at_least("ada", written.version).await.unwrap();
        assert_eq!(read.user, written);
    }
}

#[tokio::test]
async fn absence_is_cached_locally_until_the_user_is_created() {
    let env = TestEnv::shared().await;
    let (here, there) = (env.serve_from_local_cache().await, env.serve_from_local_cache().await);
    let outcome = async || {
        let result = there.batch(&["ada"]).await.unwrap().remove(0);
        (result.outcome(), result.read_info.unwrap().source())
    };
    eventually("absence is cached locally", SOON, async || outcome().await == (Outcome::NotFound, Source::LocalCache))
        .await;
    here.get("ada").await.unwrap_err();
    here.get("ada").await.unwrap_err();

    here.create("ada").await.unwrap();

    assert_eq!(here.get("ada").await.unwrap().version, 1, "its instance sees the user at once");
    eventually("the other instance sees the user", SOON, async || outcome().await.0 == Outcome::Found).await;
}

/// Only Redis replies are inserted, not rows of Postgres.
#[tokio::test]
async fn a_batch_uses_and_fills_the_local_cache() {
    let env = TestEnv::shared().await;
    let users = env.serve_from_local_cache().await;
    for id in ["ada", "bob"] {
        users.create(id).await.unwrap();
    }
    users.warm_local_cache("ada").await;
    let sources = async || -> Vec<Source> {
        let results = users.batch(&["ada", "bob", "ada"]).await.unwrap();
        results.iter().map(|result| result.read_info.unwrap().source()).collect()
    };

    assert_eq!(sources().await, [Source::LocalCache, Source::Postgres, Source::LocalCache]);
    assert_eq!(sources().await, [Source::LocalCache, Source::Redis, Source::LocalCache]);
    eventually("all are cached locally", SOON, async || sources().await == [Source::LocalCache; 3]).await;
}

/// FLUSHALL clears it, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_local_cache_is_cleared_when_tracking_is_lost() {
    let env = TestEnv::own().await;
    let redis = env.stack().redis();
    let (here, there) = (env.serve_from_local_cache().await, env.serve_from_local_cache().await);
    here.create("ada").await.unwrap();
    there.warm_local_cache("ada").await;

    redis.kill().await;
    eventually("the local cache is not used", SOON, async || {
        there.get("ada").await.unwrap().source == Source::Postgres
    })
    .await;
    here.rename("ada", "second").await.unwrap();
    assert_eq!(there.get("ada").await.unwrap().version, 2, "Postgres answers");
    redis.start().await.unwrap();

    there.warm_local_cache("ada").await;
    assert_eq!(there.get("ada").await.unwrap().version, 2);
    redis::cmd("FLUSHALL").exec(&mut env.redis()).unwrap();
    eventually("the local cache is empty", SOON, async || there.get("ada").await.unwrap().source == Source::Postgres)
        .await;
    there.warm_local_cache("ada").await;
}

/// Cached absence is not served: the user may have been created meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_local_cache_answers_stale_while_postgres_is_unavailable() {
    let env = TestEnv::own().await;
    let users = env
        .serve_from_local_cache_with(|config| {
            config.postgres.postgres_acquire_timeout = Duration::from_millis(600).into();
            config.cache.user_local_cache_ttl = Duration::from_mins(10).into();
        })
        .await;
    users.create("ada").await.unwrap();
    users.warm_local_cache("ada").await;
    users.get("nobody").await.unwrap_err();

    env.stack().postgres().kill().await;

    eventually("the answer is stale", SOON, async || users.get("ada").await.unwrap().stale).await;
    assert_eq!(users.get("ada").await.unwrap().source, Source::LocalCache);
    assert_eq!(users.get("nobody").await.unwrap_err().reason, "STORE_AWAY");
}
