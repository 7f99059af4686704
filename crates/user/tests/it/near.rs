//! The memory of an instance: what it answers, and how it hears that it must not any more.

use std::time::Duration;

use tidings_proto::user::batch_get_users_result::Outcome;
use tidings_proto::user::read_info::Source;
use tonic::Code;

use super::support::{SOON, World, eventually};

#[tokio::test]
async fn an_update_is_seen_at_once_by_the_instance_that_made_it_and_soon_by_the_memory_of_the_others() {
    let world = World::shared().await;
    let (here, there) = (world.serve_near().await, world.serve_near().await);
    here.create("ada").await.unwrap();

    for version in 2..=20 {
        here.remember("ada").await;
        there.remember("ada").await;
        here.rename("ada", &format!("name {version}")).await.unwrap();
        assert_eq!(here.get("ada").await.unwrap().version, version);
        eventually("the other has heard of it", SOON, async || there.get("ada").await.unwrap().version == version)
            .await;
    }
    here.delete("ada").await.unwrap();
    assert_eq!(here.get("ada").await.unwrap_err().code, Code::NotFound);
    eventually("the other has heard of it", SOON, async || there.get("ada").await.is_err()).await;
}

#[tokio::test]
async fn memory_never_answers_with_less_than_min_version() {
    let world = World::shared().await;
    let (here, there) = (world.serve_near().await, world.serve_near().await);
    here.create("ada").await.unwrap();

    for _ in 0..50 {
        there.remember("ada").await;
        let written = here.rename("ada", "another").await.unwrap();
        let read = there.get_at_least("ada", written.version).await.unwrap();
        assert_eq!(read.user, written);
    }
}

#[tokio::test]
async fn that_there_is_no_user_is_remembered_until_there_is_one() {
    let world = World::shared().await;
    let (here, there) = (world.serve_near().await, world.serve_near().await);
    let outcome = async || {
        let result = there.batch(&["ada"]).await.unwrap().remove(0);
        (result.outcome(), result.read_info.unwrap().source())
    };
    eventually("it is remembered", SOON, async || outcome().await == (Outcome::NotFound, Source::Near)).await;
    here.get("ada").await.unwrap_err();
    here.get("ada").await.unwrap_err();

    here.create("ada").await.unwrap();

    assert_eq!(here.get("ada").await.unwrap().version, 1, "the creator sees it at once");
    eventually("the other sees it", SOON, async || outcome().await.0 == Outcome::Found).await;
}

#[tokio::test]
async fn a_batch_takes_from_memory_what_is_there_and_keeps_what_redis_had() {
    let world = World::shared().await;
    let users = world.serve_near().await;
    for id in ["ada", "bob"] {
        users.create(id).await.unwrap();
    }
    users.remember("ada").await;
    let sources = async || -> Vec<Source> {
        let results = users.batch(&["ada", "bob", "ada"]).await.unwrap();
        results.iter().map(|result| result.read_info.unwrap().source()).collect()
    };

    assert_eq!(sources().await, [Source::Near, Source::Postgres, Source::Near]);
    assert_eq!(sources().await, [Source::Near, Source::Redis, Source::Near]);
    eventually("all are remembered", SOON, async || sources().await == [Source::Near; 3]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_dropped_when_redis_cannot_tell_of_changes_any_more() {
    let world = World::own().await;
    let redis = world.stack().redis();
    let (here, there) = (world.serve_near().await, world.serve_near().await);
    here.create("ada").await.unwrap();
    there.remember("ada").await;

    redis.kill().await;
    eventually("memory is not used", SOON, async || there.get("ada").await.unwrap().source == Source::Postgres).await;
    here.rename("ada", "second").await.unwrap();
    assert_eq!(there.get("ada").await.unwrap().version, 2, "Postgres answers");
    redis.start().await.unwrap();

    there.remember("ada").await;
    assert_eq!(there.get("ada").await.unwrap().version, 2);
    redis::cmd("FLUSHALL").exec(&mut world.redis()).unwrap();
    eventually("memory is empty", SOON, async || there.get("ada").await.unwrap().source == Source::Postgres).await;
    there.remember("ada").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_says_that_it_may_be_stale_while_postgres_is_away_and_makes_nothing_up() {
    let world = World::own().await;
    let users = world
        .serve_near_with(|config| {
            config.postgres.postgres_acquire_timeout = Duration::from_millis(600).into();
            config.cache.user_near_ttl = Duration::from_mins(10).into();
        })
        .await;
    users.create("ada").await.unwrap();
    users.remember("ada").await;
    users.get("nobody").await.unwrap_err();

    world.stack().postgres().kill().await;

    eventually("it is said", SOON, async || users.get("ada").await.unwrap().stale).await;
    assert_eq!(users.get("ada").await.unwrap().source, Source::Near);
    assert_eq!(users.get("nobody").await.unwrap_err().reason, "STORE_AWAY");
}
