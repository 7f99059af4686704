//! Tests of GetUserByHandle.

use std::time::Duration;

use futures_util::future::join_all;
use tidings_proto::user as pb;
use tidings_proto::user::read_info::Source;
use tidings_status::Failure;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::support::{FoundUser, SOON, TestEnv, UserInstance, eventually};

/// Acquire timeout: short for an outage, long enough to get a connection on a busy machine.
const ACQUIRE: Duration = Duration::from_millis(600);

async fn at_least(users: &UserInstance, handle: &str, min_version: i64) -> Result<FoundUser, Failure> {
    users
        .call_by_handle(pb::GetUserByHandleRequest { handle: handle.to_owned(), min_version, ..Default::default() })
        .await
}

async fn strong(users: &UserInstance, handle: &str) -> Result<FoundUser, Failure> {
    let consistency = pb::Consistency::Strong.into();
    users
        .call_by_handle(pb::GetUserByHandleRequest { handle: handle.to_owned(), consistency, ..Default::default() })
        .await
}

async fn owner(users: &UserInstance, handle: &str) -> String {
    users.by_handle(handle).await.unwrap().user.id
}

fn expect_not_found(answer: Result<FoundUser, Failure>) {
    let failure = answer.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::NotFound, "USER_NOT_FOUND"), "{failure}");
}

#[tokio::test]
async fn a_user_is_found_by_handle_ignoring_case() {
    let users = TestEnv::shared().await.serve_without_relay().await;
    let ada = users.create_with_handle("ada", "Ada.L").await.unwrap();
    users.create_with_handle("bob", "bob").await.unwrap();
    users.warm_redis("ada").await;

    for handle in ["Ada.L", "ada.l", "ADA.L"] {
        let found = users.by_handle(handle).await.unwrap();
        assert_eq!((found.user, found.source, found.stale), (ada.clone(), Source::Redis, false), "{handle}");
    }
    let found = strong(&users, "aDA.l").await.unwrap();
    assert_eq!((found.user, found.source), (ada, Source::Postgres));
}

#[tokio::test]
async fn an_unused_handle_is_not_found_and_named() {
    let users = UserInstance::start().await;
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
async fn an_unused_handle_is_never_cached() {
    let (here, there) = UserInstance::start_two().await;
    expect_not_found(here.by_handle("ada").await);
    expect_not_found(there.by_handle("ada").await);

    here.create_with_handle("ada", "Ada").await.unwrap();

    assert_eq!((owner(&here, "ada").await, owner(&there, "ada").await), ("ada".to_owned(), "ada".to_owned()));
}

/// Also after it moved, was given up, was taken again, or changed only its case.
#[tokio::test]
async fn a_handle_leads_to_its_current_owner() {
    let (here, there) = UserInstance::start_two().await;
    here.create_with_handle("ada", "admin").await.unwrap();
    here.create("bob").await.unwrap();
    for users in [&here, &there] {
        users.warm_redis("ada").await;
        users.warm_redis("bob").await;
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
async fn a_hint_is_served_only_if_its_profile_has_the_handle() {
    let env = TestEnv::shared().await;
    let users = env.serve_without_relay().await;
    users.create_with_handle("ada", "ada").await.unwrap();
    users.create_with_handle("bob", "bob").await.unwrap();
    users.warm_redis("bob").await;
    let key = env.keys("h", "ada").pop().unwrap();
    let mut redis = env.redis();

    for wrong in ["bob", "nobody", "no id at all {}"] {
        redis::cmd("SET").arg(&key).arg(wrong).exec(&mut redis).unwrap();
        assert_eq!(owner(&users, "ada").await, "ada", "{wrong}");
        assert_eq!(redis::cmd("GET").arg(&key).query::<String>(&mut redis).unwrap(), "ada", "the hint is corrected");
    }
    redis::cmd("SET").arg(key.replace("{ada}", "{nobody}")).arg("bob").exec(&mut redis).unwrap();
    expect_not_found(users.by_handle("nobody").await);
    assert!(env.keys("h", "nobody").is_empty(), "a hint for an unused handle is deleted");
}

#[tokio::test]
async fn min_version_applies_to_the_current_owner_of_the_handle() {
    let env = TestEnv::shared().await;
    let users = env.serve_without_relay().await;
    users.create_with_handle("ada", "admin").await.unwrap();
    users.create("bob").await.unwrap();
    users.warm_redis("ada").await;
    users.warm_redis("bob").await;
    assert_eq!(at_least(&users, "admin", 1).await.unwrap().user.id, "ada");

    // Changes that bypass the caches.
    env.execute("UPDATE user_account SET handle = '', handle_key = NULL WHERE id = 'ada'").await;
    env.execute("UPDATE user_account SET handle = 'Admin', handle_key = 'admin', version = 9 WHERE id = 'bob'").await;

    let found = at_least(&users, "admin", 9).await.unwrap();
    assert_eq!((found.user.id.as_str(), found.version), ("bob", 9), "not ada, the former owner, at version 1");
    let ahead = at_least(&users, "admin", 10).await.unwrap_err();
    assert_eq!((ahead.code, ahead.reason.as_str()), (Code::FailedPrecondition, "VERSION_AHEAD"));
    assert_eq!(ahead.metadata["version"], "9");
    expect_not_found(at_least(&users, "nobody", 10).await);
}

#[tokio::test]
async fn an_update_is_seen_by_handle_with_min_version() {
    let (here, there) = UserInstance::start_two().await;
    here.create_with_handle("ada", "ada").await.unwrap();
    there.warm_redis("ada").await;
    assert_eq!(there.by_handle("ada").await.unwrap().version, 1);

    let changed = here.rename("ada", "Ada King").await.unwrap();

    assert_eq!(at_least(&there, "ada", changed.version).await.unwrap().user, changed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_are_found_while_redis_is_unavailable() {
    let env = TestEnv::own().await;
    let users = env.serve().await;
    users.create_with_handle("ada", "ada").await.unwrap();
    users.warm_redis("ada").await;
    assert_eq!(users.by_handle("ada").await.unwrap().source, Source::Redis);

    env.stack().redis().kill().await;

    assert_eq!(users.by_handle("ADA").await.unwrap().source, Source::Postgres);
    expect_not_found(users.by_handle("nobody").await);
    users.take_handle("ada", "Countess").await.unwrap();
    expect_not_found(users.by_handle("ada").await);
    assert_eq!(users.by_handle("countess").await.unwrap().version, 2);
}

/// Unless both are in Redis, the call is UNAVAILABLE.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_postgres_a_handle_needs_its_hint_and_profile() {
    let env = TestEnv::own().await;
    let users = env.serve_with(|config| config.postgres.postgres_acquire_timeout = ACQUIRE.into()).await;
    for id in ["ada", "bob", "cold"] {
        users.create_with_handle(id, id).await.unwrap();
    }
    users.warm_redis("ada").await;
    users.warm_redis("bob").await;
    assert_eq!(owner(&users, "ada").await, "ada");
    let key = env.keys("h", "ada").pop().unwrap();
    redis::cmd("SET").arg(key.replace("{ada}", "{other}")).arg("bob").exec(&mut env.redis()).unwrap();

    env.stack().postgres().kill().await;
    eventually("the outage is noticed", SOON, async || users.get("ada").await.unwrap().stale).await;

    let found = users.by_handle("ADA").await.unwrap();
    assert_eq!((found.user.id.as_str(), found.source, found.stale), ("ada", Source::Redis, true));
    let refused = [
        users.by_handle("cold").await, // a hint without a profile
        users.by_handle("never-seen").await,
        users.by_handle("other").await, // a hint to another user
        at_least(&users, "ada", 2).await,
        strong(&users, "ada").await,
    ];
    for answer in refused {
        let failure = answer.unwrap_err();
        assert_eq!((failure.code, failure.reason.as_str()), (Code::Unavailable, "STORE_AWAY"), "{failure}");
    }
}

#[tokio::test]
async fn readers_of_a_handle_without_hint_share_postgres_reads() {
    const READERS: usize = 200;
    let env = TestEnv::own().await;
    let users = env.serve_without_relay().await;
    users.create_with_handle("ada", "ada").await.unwrap();
    users.warm_redis("ada").await;
    assert!(env.evict("h", "ada"));

    for read in join_all((0..READERS).map(|_| users.by_handle("ada"))).await {
        assert_eq!(read.unwrap().user.id, "ada");
    }

    users.stop().await;
    let scans = env.account_scans().await;
    assert!(scans <= 12, "{scans} scans for {READERS} readers, with those of the creation");
}
