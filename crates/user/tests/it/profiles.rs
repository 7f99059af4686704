//! The life cycle of a profile.

use std::collections::BTreeMap;

use tidings_proto::user as pb;
use tidings_proto::user::read_info::Source;
use tonic::Code;

use super::support::{TestEnv, UserInstance, changing};

fn ada() -> pb::User {
    pb::User {
        id: "ada".to_owned(),
        handle: "Ada.L".to_owned(),
        display_name: "Ada Lovelace ☕".to_owned(),
        age: Some(36),
        avatar_uri: "https://example.org/ada.png".to_owned(),
        bio: "Wrote the first program.".to_owned(),
        attributes: BTreeMap::from([("team".to_owned(), "engines".to_owned()), ("empty".to_owned(), String::new())]),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_user_is_created_read_changed_and_deleted() {
    let users = UserInstance::start().await;
    let request = pb::CreateUserRequest { user: Some(ada()), ..Default::default() };

    let created = users.call_create(request).await.unwrap();
    let first = created.user.unwrap();
    assert!(!created.deduplicated);
    let stored = pb::User { create_time: None, update_time: None, ..first.clone() };
    assert_eq!(stored, pb::User { version: 1, ..ada() });
    assert_eq!(first.create_time, first.update_time);
    assert_eq!(users.get("ada").await.unwrap().user, first);

    let change = changing(pb::User { bio: "Met an engine.".to_owned(), ..ada() }, &["bio"]);
    let changed = users.call_update(change).await.unwrap();
    assert_eq!((changed.version, changed.bio.as_str()), (2, "Met an engine."));
    assert_eq!(changed.create_time, first.create_time);
    assert!(changed.update_time.unwrap().nanos >= 0);
    assert_eq!(users.get("ada").await.unwrap().user, changed);
    assert_eq!(users.batch(&["ada"]).await.unwrap()[0].user, Some(changed));

    let deleted = users.delete("ada").await.unwrap();
    assert_eq!(deleted.version, 3);
    assert!(deleted.delete_time.is_some());
    assert_eq!(users.get("ada").await.unwrap_err().reason, "USER_NOT_FOUND");
    assert_eq!(users.delete("ada").await.unwrap_err().reason, "USER_NOT_FOUND");
    assert_eq!(users.rename("ada", "again").await.unwrap_err().reason, "USER_NOT_FOUND");
}

#[tokio::test]
async fn cached_and_stored_users_are_equal() {
    let users = TestEnv::shared().await.serve_without_relay().await;
    let request = pb::CreateUserRequest { user: Some(ada()), ..Default::default() };
    users.call_create(request).await.unwrap();

    let cold = users.get("ada").await.unwrap();
    let warm = users.get("ada").await.unwrap();
    let strong = users.get_strong("ada").await.unwrap();

    assert_eq!((cold.source, warm.source, strong.source), (Source::Postgres, Source::Redis, Source::Postgres));
    assert_eq!(warm.user, cold.user);
    assert_eq!(strong.user, cold.user);
    assert!(!warm.stale);
}

#[tokio::test]
async fn an_unknown_id_is_not_found_and_named() {
    let users = UserInstance::start().await;

    let failure = users.get("nobody").await.unwrap_err();

    assert_eq!((failure.code, failure.reason.as_str()), (Code::NotFound, "USER_NOT_FOUND"));
    assert_eq!(failure.domain, "user.tidings");
    assert!(failure.message.contains("nobody"));
}

#[tokio::test]
async fn nothing_of_a_deleted_user_is_kept_but_id_version_and_times() {
    let env = TestEnv::shared().await;
    let users = env.serve().await;
    let request = pb::CreateUserRequest { user: Some(ada()), ..Default::default() };
    users.call_create(request).await.unwrap();
    users.warm_redis("ada").await;

    users.delete("ada").await.unwrap();

    let emptied = "SELECT count(*) FROM user_account WHERE id = 'ada' AND handle = '' AND handle_key IS NULL \
                   AND display_name = '' AND age IS NULL AND avatar_uri = '' AND bio = '' AND attributes = '{}' \
                   AND fingerprint IS NULL AND version = 2 AND delete_time IS NOT NULL";
    assert_eq!(env.count(emptied).await, 1);
    let value: Vec<u8> = redis::cmd("GET").arg(&env.keys("u", "ada")[0]).query(&mut env.redis()).unwrap();
    assert!(!String::from_utf8_lossy(&value).contains("Lovelace"));
}
