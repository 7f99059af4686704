//! Profiles that have been cached for long.

use std::time::Duration;

use tidings_proto::user::read_info::Source;

use super::support::{SOON, World, eventually};

/// A change of which no cache ever hears.
const UNHEARD: &str = "UPDATE user_account SET version = version + 1, display_name = 'unheard'";

#[tokio::test]
async fn an_old_profile_is_answered_once_more_and_read_anew() {
    let world = World::shared().await;
    let users = world.serve_with(|config| config.cache.user_soft_ttl = Duration::from_millis(100).into()).await;
    users.create("ada").await.unwrap();
    users.cache("ada").await;
    world.execute(UNHEARD).await;

    eventually("it is read anew", SOON, async || {
        let read = users.get("ada").await.unwrap();
        assert_eq!(read.source, Source::Redis, "nobody waits for Postgres");
        read.version == 2
    })
    .await;
    world.execute(UNHEARD).await;
    eventually("a batch does so, too", SOON, async || {
        let result = users.batch(&["ada"]).await.unwrap().remove(0);
        assert_eq!(result.read_info.unwrap().source(), Source::Redis);
        result.user.unwrap().version == 3
    })
    .await;
}

#[tokio::test]
async fn an_old_profile_is_read_anew_by_one_of_many_readers() {
    let world = World::shared().await;
    let users = world.serve_with(|config| config.cache.user_soft_ttl = Duration::from_secs(2).into()).await;
    users.create("ada").await.unwrap();
    eventually("the relay is done", SOON, async || world.outbox("ada").await == 0).await; // its look is counted below
    users.cache("ada").await;
    tokio::time::sleep(Duration::from_millis(2400)).await; // it is old now

    for _ in 0..200 {
        assert_eq!(users.get("ada").await.unwrap().source, Source::Redis);
    }
    users.stop().await;

    let looks = world.looks_at_accounts().await;
    assert!((3..=5).contains(&looks), "creation, relay, first read, one refresh: {looks}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_profile_stays_while_postgres_is_away() {
    let world = World::own().await;
    let users = world
        .serve_with(|config| {
            config.postgres.postgres_acquire_timeout = Duration::from_millis(600).into();
            config.cache.user_soft_ttl = Duration::from_millis(1).into();
        })
        .await;
    users.create("ada").await.unwrap();
    users.cache("ada").await;

    world.stack().postgres().kill().await;
    eventually("it is said to be stale", SOON, async || users.get("ada").await.unwrap().stale).await;
    for _ in 0..100 {
        assert_eq!(users.get("ada").await.unwrap().source, Source::Redis);
    }
    world.stack().postgres().start().await.unwrap();

    eventually("Postgres is asked again", SOON, async || !users.get("ada").await.unwrap().stale).await;
    world.execute(UNHEARD).await;
    eventually("it is read anew", SOON, async || users.get("ada").await.unwrap().version == 2).await;
}
