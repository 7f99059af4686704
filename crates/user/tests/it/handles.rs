//! Users by handle.

use std::time::Duration;

use tidings_proto::user as pb;
use tidings_proto::user::read_info::Source;
use tidings_status::Failure;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::support::{Answer, SOON, Users, World, eventually};

/// What it takes to find out that there is no connection: long enough to get one on a busy machine.
const ACQUIRE: Duration = Duration::from_millis(600);

async fn at_least(users: &Users, handle: &str, min_version: i64) -> Result<Answer, Failure> {
    users
        .call_by_handle(pb::GetUserByHandleRequest { handle: handle.to_owned(), min_version, ..Default::default() })
        .await
}

async fn strong(users: &Users, handle: &str) -> Result<Answer, Failure> {
    let consistency = pb::Consistency::Strong.into();
    users
        .call_by_handle(pb::GetUserByHandleRequest { handle: handle.to_owned(), consistency, ..Default::default() })
        .await
}

async fn owner(users: &Users, handle: &str) -> String {
    users.by_handle(handle).await.unwrap().user.id
}

fn expect_not_found(answer: Result<Answer, Failure>) {
    let failure = answer.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::NotFound, "USER_NOT_FOUND"), "{failure}");
}

#[tokio::test]
async fn a_user_is_found_by_handle_whatever_its_case_first_in_postgres_then_in_the_cache() {
    let users = World::shared().await.serve_without_relay().await;
    let ada = users.create_with_handle("ada", "Ada.L").await.unwrap();
    users.create_with_handle("bob", "bob").await.unwrap();
    users.cache("ada").await;

    for handle in ["Ada.L", "ada.l", "ADA.L"] {
        let found = users.by_handle(handle).await.unwrap();
        assert_eq!((found.user, found.source, found.stale), (ada.clone(), Source::Redis, false), "{handle}");
    }
    let found = strong(&users, "aDA.l").await.unwrap();
    assert_eq!((found.user, found.source), (ada, Source::Postgres));
}

#[tokio::test]
async fn a_handle_that_nobody_has_is_not_found_and_named() {
    let users = Users::start().await;
    users.create_with_handle("ada", "ada").await.unwrap();
    let request = pb::GetUserByHandleRequest { handle: "Nobody".to_owned(), ..Default::default() };

    let status = users.client().get_user_by_handle(request).await.unwrap_err();

    assert_eq!((status.code(), status.message()), (Code::NotFound, "no user has the handle Nobody"));
    let resource = status.get_details_resource_info().unwrap();
    assert_eq!((resource.resource_type.as_str(), resource.resource_name.as_str()), ("handle", "Nobody"));
    expect_not_found(users.by_handle("ad").await);
    expect_not_found(strong(&users, "ada.").await);
}

#[tokio::test]
async fn that_nobody_has_a_handle_is_never_cached() {
    let (here, there) = Users::start_two().await;
    expect_not_found(here.by_handle("ada").await);
    expect_not_found(there.by_handle("ada").await);

    here.create_with_handle("ada", "Ada").await.unwrap();

    assert_eq!((owner(&here, "ada").await, owner(&there, "ada").await), ("ada".to_owned(), "ada".to_owned()));
}

#[tokio::test]
async fn a_handle_that_moved_was_given_up_or_taken_again_is_answered_with_who_has_it() {
    let (here, there) = Users::start_two().await;
    here.create_with_handle("ada", "admin").await.unwrap();
    here.create("bob").await.unwrap();
    for users in [&here, &there] {
        users.cache("ada").await;
        users.cache("bob").await;
        assert_eq!(owner(users, "admin").await, "ada");
    }

    here.take_handle("ada", "").await.unwrap();
    expect_not_found(there.by_handle("admin").await);
    there.take_handle("bob", "ADMIN").await.unwrap();
    assert_eq!((owner(&here, "admin").await, owner(&there, "admin").await), ("bob".to_owned(), "bob".to_owned()));

    here.delete("bob").await.unwrap();
    expect_not_found(there.by_handle("admin").await);
    expect_not_found(here.by_handle("admin").await);
    there.take_handle("ada", "Admin").await.unwrap();
    assert_eq!((owner(&here, "admin").await, owner(&there, "admin").await), ("ada".to_owned(), "ada".to_owned()));

    // Changed in case only: the same handle.
    here.take_handle("ada", "aDMIN").await.unwrap();
    assert_eq!(there.by_handle("admin").await.unwrap().user.handle, "aDMIN");
}

#[tokio::test]
async fn a_hint_counts_only_if_the_profile_under_it_has_the_handle() {
    let world = World::shared().await;
    let users = world.serve_without_relay().await;
    users.create_with_handle("ada", "ada").await.unwrap();
    users.create_with_handle("bob", "bob").await.unwrap();
    users.cache("bob").await;
    let key = world.keys("h", "ada").pop().unwrap();
    let mut redis = world.redis();

    for wrong in ["bob", "nobody", "no id at all {}"] {
        redis::cmd("SET").arg(&key).arg(wrong).exec(&mut redis).unwrap();
        assert_eq!(owner(&users, "ada").await, "ada", "{wrong}");
        assert_eq!(redis::cmd("GET").arg(&key).query::<String>(&mut redis).unwrap(), "ada", "it is put right");
    }
    redis::cmd("SET").arg(key.replace("{ada}", "{nobody}")).arg("bob").exec(&mut redis).unwrap();
    expect_not_found(users.by_handle("nobody").await);
    assert!(world.keys("h", "nobody").is_empty(), "a hint to what is not there is taken away");
}

#[tokio::test]
async fn min_version_is_asked_of_who_has_the_handle_now() {
    let world = World::shared().await;
    let users = world.serve_without_relay().await;
    users.create_with_handle("ada", "admin").await.unwrap();
    users.create("bob").await.unwrap();
    users.cache("ada").await;
    users.cache("bob").await;
    assert_eq!(at_least(&users, "admin", 1).await.unwrap().user.id, "ada");

    // Of which no cache can know.
    world.execute("UPDATE user_account SET handle = '', handle_key = NULL WHERE id = 'ada'").await;
    world.execute("UPDATE user_account SET handle = 'Admin', handle_key = 'admin', version = 9 WHERE id = 'bob'").await;

    let found = at_least(&users, "admin", 9).await.unwrap();
    assert_eq!((found.user.id.as_str(), found.version), ("bob", 9), "ada, at version 1, is not who was asked for");
    let ahead = at_least(&users, "admin", 10).await.unwrap_err();
    assert_eq!((ahead.code, ahead.reason.as_str()), (Code::FailedPrecondition, "VERSION_AHEAD"));
    assert_eq!(ahead.metadata["version"], "9");
    expect_not_found(at_least(&users, "nobody", 10).await);
}

#[tokio::test]
async fn an_update_is_seen_at_once_by_a_read_by_handle_with_min_version() {
    let (here, there) = Users::start_two().await;
    here.create_with_handle("ada", "ada").await.unwrap();
    there.cache("ada").await;
    assert_eq!(there.by_handle("ada").await.unwrap().version, 1);

    let changed = here.rename("ada", "Ada King").await.unwrap();

    assert_eq!(at_least(&there, "ada", changed.version).await.unwrap().user, changed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_are_found_while_redis_is_away() {
    let world = World::own().await;
    let users = world.serve().await;
    users.create_with_handle("ada", "ada").await.unwrap();
    users.cache("ada").await;
    assert_eq!(users.by_handle("ada").await.unwrap().source, Source::Redis);

    world.stack().redis().kill().await;

    assert_eq!(users.by_handle("ADA").await.unwrap().source, Source::Postgres);
    expect_not_found(users.by_handle("nobody").await);
    users.take_handle("ada", "Countess").await.unwrap();
    expect_not_found(users.by_handle("ada").await);
    assert_eq!(users.by_handle("countess").await.unwrap().version, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgres_is_away_a_handle_is_answered_from_hint_and_profile_or_not_at_all() {
    let world = World::own().await;
    let users = world.serve_with(|config| config.postgres.postgres_acquire_timeout = ACQUIRE.into()).await;
    for id in ["ada", "bob", "cold"] {
        users.create_with_handle(id, id).await.unwrap();
    }
    users.cache("ada").await;
    users.cache("bob").await;
    assert_eq!(owner(&users, "ada").await, "ada");
    let key = world.keys("h", "ada").pop().unwrap();
    redis::cmd("SET").arg(key.replace("{ada}", "{other}")).arg("bob").exec(&mut world.redis()).unwrap();

    world.stack().postgres().kill().await;
    eventually("it is noticed", SOON, async || users.get("ada").await.unwrap().stale).await;

    let found = users.by_handle("ADA").await.unwrap();
    assert_eq!((found.user.id.as_str(), found.source, found.stale), ("ada", Source::Redis, true));
    let refused = [
        users.by_handle("cold").await, // a hint, and no profile
        users.by_handle("never-seen").await,
        users.by_handle("other").await, // a hint to somebody else
        at_least(&users, "ada", 2).await,
        strong(&users, "ada").await,
    ];
    for answer in refused {
        let failure = answer.unwrap_err();
        assert_eq!((failure.code, failure.reason.as_str()), (Code::Unavailable, "STORE_AWAY"), "{failure}");
    }
}
