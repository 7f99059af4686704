//! What a read promises about writes that were made elsewhere.

use std::time::Duration;

use tidings_proto::user::read_info::Source;
use tonic::Code;

use super::support::{SOON, Users, World, eventually, no_relay, told};

#[tokio::test]
async fn an_update_is_seen_by_the_next_read_on_any_instance_if_redis_answered_the_write() {
    let world = World::shared().await;
    let here = world.serve_without_relay().await;
    let there = world.serve_without_relay().await;
    here.create("ada").await.unwrap();
    here.cache("ada").await;

    for version in 2..=20 {
        let written = here.rename("ada", &format!("name {version}")).await.unwrap();
        for users in [&there, &here] {
            let read = users.get("ada").await.unwrap();
            assert_eq!((read.version, &read.user.display_name), (version, &written.display_name));
            assert_eq!(read.source, Source::Redis); // replaced, not only thrown away
        }
    }
    here.delete("ada").await.unwrap();
    assert_eq!(there.get("ada").await.unwrap_err().reason, "USER_NOT_FOUND");
    assert_eq!(here.get("ada").await.unwrap_err().reason, "USER_NOT_FOUND");
}

/// An instance that can not reach Redis.
async fn cut_off(world: &World) -> Users {
    let nowhere = World { redis_url: "redis://127.0.0.1:1".to_owned(), ..world.clone() };
    nowhere
        .serve_with(|config| {
            config.redis.redis_timeout = Some(Duration::from_millis(20).into());
            no_relay(config);
        })
        .await
}

#[tokio::test]
async fn an_update_is_seen_within_one_relay_tick_if_redis_did_not_answer() {
    let world = World::shared().await;
    let reader = world.serve_without_relay().await;
    let writer = cut_off(&world).await;
    reader.create("ada").await.unwrap();
    reader.cache("ada").await;

    writer.rename("ada", "second").await.unwrap();
    assert_eq!(reader.get("ada").await.unwrap().version, 1, "nobody told the cache yet");
    assert!(world.outbox("ada").await > 0);

    let _relaying = world.serve().await;
    eventually("the relay told the cache", Duration::from_secs(2), async || {
        reader.get("ada").await.unwrap().version == 2
    })
    .await;
    eventually("the relay is done", SOON, async || world.outbox("ada").await == 0).await;
}

#[tokio::test]
async fn an_update_is_seen_at_once_by_a_read_with_min_version() {
    let world = World::shared().await;
    let reader = world.serve_without_relay().await;
    let writer = cut_off(&world).await;
    reader.create("ada").await.unwrap();
    reader.cache("ada").await;

    let written = writer.rename("ada", "second").await.unwrap();
    assert_eq!(reader.get("ada").await.unwrap().version, 1);
    assert_eq!(reader.get_strong("ada").await.unwrap().version, 2);
    let read = reader.get_at_least("ada", written.version).await.unwrap();

    assert_eq!((read.version, read.user.display_name.as_str()), (2, "second"));
    let read = reader.get("ada").await.unwrap();
    assert_eq!((read.version, read.source), (2, Source::Redis), "what was found out is cached");
}

#[tokio::test]
async fn a_min_version_above_postgres_is_told_the_current_one() {
    let users = Users::start().await;
    users.create("ada").await.unwrap();

    for _cold_then_cached in 0..2 {
        let refused = users.get_at_least("ada", 2).await.unwrap_err();
        assert_eq!((refused.code, refused.reason.as_str()), (Code::FailedPrecondition, "VERSION_AHEAD"));
        assert_eq!(refused.metadata["version"], "1");
        users.cache("ada").await;
    }
    assert_eq!(users.get_at_least("nobody", 2).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn unknown_ids_do_not_hammer_postgres() {
    let world = World::shared().await;
    let before = world.looks_at_accounts().await;
    let users = world.serve().await;

    for _ in 0..100 {
        assert_eq!(users.get("nobody").await.unwrap_err().reason, "USER_NOT_FOUND");
    }
    users.stop().await;

    let looks = world.looks_at_accounts().await - before;
    assert_eq!(looks, 1, "the first read looks, the others know");
}

#[tokio::test]
async fn a_cold_herd_on_two_instances_is_one_look_into_postgres() {
    let world = World::shared().await;
    let patient = |config: &mut tidings_user::Config| {
        config.cache.user_fill_wait = SOON.into();
        config.redis.redis_timeout = Some(SOON.into());
        config.cache.user_lease_ttl = SOON.into();
    };
    let (here, there) = (world.serve_with(patient).await, world.serve_with(patient).await);
    let sown = "INSERT INTO user_account (id, handle, display_name, avatar_uri, bio, attributes, version) \
                VALUES ('ada', '', 'Ada', '', '', '{}', 1)";
    world.execute(sown).await;
    let before =
        world.count("SELECT idx_scan + seq_scan FROM pg_stat_user_tables WHERE relname = 'user_account'").await;

    let reads: Vec<_> = (0..200)
        .map(|number| {
            let mut client = if number % 2 == 0 { here.client() } else { there.client() };
            let request = tidings_proto::user::GetUserRequest { id: "ada".to_owned(), ..Default::default() };
            tokio::spawn(async move { told(client.get_user(request).await) })
        })
        .collect();
    for read in reads {
        assert_eq!(read.await.unwrap().unwrap().user.unwrap().display_name, "Ada");
    }
    here.stop().await;
    there.stop().await;

    assert_eq!(world.looks_at_accounts().await - before, 1);
}

#[tokio::test]
async fn a_user_created_after_it_was_not_found_is_seen_at_once_everywhere() {
    let world = World::shared().await;
    let here = world.serve_without_relay().await;
    let there = world.serve_without_relay().await;
    for users in [&here, &there] {
        assert_eq!(users.get("ada").await.unwrap_err().code, Code::NotFound);
    }
    assert!(world.cached("ada"), "that there is none is cached");

    here.create("ada").await.unwrap();

    assert_eq!(here.get("ada").await.unwrap().version, 1);
    assert_eq!(there.get("ada").await.unwrap().version, 1);
    assert_eq!(there.batch(&["ada"]).await.unwrap()[0].user.as_ref().unwrap().version, 1);
}

#[tokio::test]
async fn a_value_that_this_release_can_not_read_is_left_alone_and_postgres_answers() {
    let world = World::shared().await;
    let users = world.serve_with(|config| config.cache.user_fill_wait = SOON.into()).await;
    users.create("ada").await.unwrap();
    users.cache("ada").await;
    let key = &world.keys("u", "ada")[0];
    let newer = [&[9][..], &1_u64.to_be_bytes(), &[0; 40]].concat();
    redis::cmd("SET").arg(key).arg(&newer).exec(&mut world.redis()).unwrap();

    let begun = std::time::Instant::now();
    let read = users.get("ada").await.unwrap();

    assert_eq!((read.version, read.source), (1, Source::Postgres));
    assert!(begun.elapsed() < SOON, "nobody is about to fill it");
    let kept: Vec<u8> = redis::cmd("GET").arg(key).query(&mut world.redis()).unwrap();
    assert_eq!(kept, newer);
    assert_eq!(users.rename("ada", "second").await.unwrap().version, 2);
    assert_eq!(users.get("ada").await.unwrap().source, Source::Redis, "a newer version replaces it");
}

#[tokio::test]
async fn rubbish_under_a_key_does_not_stop_the_relay() {
    let world = World::shared().await;
    let users = world.serve().await;
    users.create("ada").await.unwrap();
    users.cache("ada").await;
    redis::cmd("SET").arg(&world.keys("u", "ada")[0]).arg("?").exec(&mut world.redis()).unwrap();

    users.rename("ada", "second").await.unwrap();

    eventually("the relay is done", SOON, async || world.outbox("ada").await == 0).await;
    assert_eq!(users.get("ada").await.unwrap().version, 2);
}

#[tokio::test]
async fn a_write_wakes_the_relay_of_its_own_instance() {
    let world = World::shared().await;
    let users = world
        .serve_with(|config| {
            no_relay(config);
            config.cache.user_relay_gather = Duration::from_millis(10).into();
        })
        .await;

    users.create("ada").await.unwrap();

    eventually("it is relayed though no tick has come", SOON, async || world.outbox("ada").await == 0).await;
}
