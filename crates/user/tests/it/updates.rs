//! Updates and deletions of users: masks, versions, races.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sqlx::Connection as _;
use tidings_proto::user as pb;
use tonic::Code;

use super::support::{TestEnv, UserInstance, changing, into_result, renaming};

fn full() -> pb::User {
    pb::User {
        id: "ada".to_owned(),
        handle: "ada".to_owned(),
        display_name: "Ada".to_owned(),
        age: Some(36),
        avatar_uri: "https://example.org".to_owned(),
        bio: "bio".to_owned(),
        attributes: BTreeMap::from([("team".to_owned(), "engines".to_owned())]),
        ..Default::default()
    }
}

async fn start_with(user: pb::User) -> UserInstance {
    let users = UserInstance::start().await;
    users.call_create(pb::CreateUserRequest { user: Some(user), ..Default::default() }).await.unwrap();
    users
}

fn without_times(user: pb::User) -> pb::User {
    pb::User { create_time: None, update_time: None, ..user }
}

/// Takes one field of another user.
type Take = fn(&mut pb::User, pb::User);

/// The clock of Postgres was an hour ahead at the last write.
#[tokio::test]
async fn update_time_never_goes_back() {
    let env = TestEnv::shared().await;
    let users = env.serve().await;
    users.create("ada").await.unwrap();
    env.execute("UPDATE user_account SET update_time = now() + interval '1 hour'").await;
    let before = users.get_strong("ada").await.unwrap().user.update_time.unwrap();

    let updated = users.rename("ada", "Ada").await.unwrap().update_time.unwrap();
    let deleted = users.delete("ada").await.unwrap().delete_time.unwrap();

    assert_eq!((updated, deleted), (before, before));
}

#[tokio::test]
async fn an_update_changes_the_named_fields_only() {
    let users = start_with(full()).await;
    let other = pb::User {
        id: "ada".to_owned(),
        handle: "other".to_owned(),
        display_name: "Other".to_owned(),
        age: Some(1),
        avatar_uri: "other:".to_owned(),
        bio: "other".to_owned(),
        attributes: BTreeMap::from([("other".to_owned(), "other".to_owned())]),
        ..Default::default()
    };
    let mut expected = pb::User { version: 1, ..full() };
    let take: [(&str, Take); 6] = [
        ("handle", |user, other| user.handle = other.handle),
        ("display_name", |user, other| user.display_name = other.display_name),
        ("age", |user, other| user.age = other.age),
        ("avatar_uri", |user, other| user.avatar_uri = other.avatar_uri),
        ("bio", |user, other| user.bio = other.bio),
        ("attributes", |user, other| user.attributes = other.attributes),
    ];

    for (field, take) in take {
        let changed = users.call_update(changing(other.clone(), &[field])).await.unwrap();

        expected.version += 1;
        take(&mut expected, other.clone());
        assert_eq!(without_times(changed), expected, "{field}");
        assert_eq!(without_times(users.get("ada").await.unwrap().user), expected, "{field}");
    }
}

#[tokio::test]
async fn an_empty_named_field_is_cleared() {
    let users = start_with(full()).await;
    let empty = pb::User { id: "ada".to_owned(), ..Default::default() };
    let all = ["handle", "display_name", "age", "avatar_uri", "bio", "attributes"];

    let changed = users.call_update(changing(empty.clone(), &all)).await.unwrap();

    assert_eq!(without_times(changed), pb::User { version: 2, ..empty });
}

/// The error carries the current version.
#[tokio::test]
async fn a_write_at_an_unexpected_version_is_aborted() {
    let users = start_with(full()).await;
    users.rename("ada", "second").await.unwrap();

    let update = pb::UpdateUserRequest { expected_version: 1, ..renaming("ada", "lost") };
    let update = users.call_update(update).await.unwrap_err();
    let delete = pb::DeleteUserRequest { id: "ada".to_owned(), expected_version: 3 };
    let delete = users.call_delete(delete).await.unwrap_err();

    for refused in [update, delete] {
        assert_eq!((refused.code, refused.reason.as_str()), (Code::Aborted, "VERSION_MISMATCH"));
        assert_eq!(refused.metadata["version"], "2");
    }
    assert_eq!(users.get("ada").await.unwrap().user.display_name, "second");
}

#[tokio::test]
async fn a_retry_with_expected_version_fails_with_the_new_version() {
    let users = start_with(full()).await;
    let update = pb::UpdateUserRequest { expected_version: 1, ..renaming("ada", "second") };

    assert_eq!(users.call_update(update.clone()).await.unwrap().version, 2);
    let repeat = users.call_update(update).await.unwrap_err();

    assert_eq!((repeat.reason.as_str(), repeat.metadata["version"].as_str()), ("VERSION_MISMATCH", "2"));
}

#[tokio::test]
async fn an_unknown_user_cannot_be_changed_or_deleted() {
    let users = UserInstance::start().await;

    let update = pb::UpdateUserRequest { expected_version: 1, ..renaming("nobody", "new") };
    let conditional = users.call_update(update).await.unwrap_err();
    let unconditional = users.rename("nobody", "new").await.unwrap_err();
    let delete = users.delete("nobody").await.unwrap_err();

    for refused in [conditional, unconditional, delete] {
        assert_eq!((refused.code, refused.reason.as_str()), (Code::NotFound, "USER_NOT_FOUND"));
    }
}

#[tokio::test]
async fn concurrent_updates_get_distinct_versions() {
    let (here, there) = UserInstance::start_two().await;
    here.create("ada").await.unwrap();
    let calls: Vec<_> = (0..32)
        .map(|number| {
            let mut client = if number % 2 == 0 { here.client() } else { there.client() };
            let request = renaming("ada", &format!("name {number}"));
            tokio::spawn(async move { into_result(client.update_user(request).await).unwrap().user.unwrap() })
        })
        .collect();

    let mut versions = BTreeMap::new();
    for call in calls {
        let user = call.await.unwrap();
        versions.insert(user.version, user.display_name);
    }

    assert_eq!(versions.keys().copied().collect::<BTreeSet<_>>(), (2..=33).collect());
    for users in [&here, &there] {
        let read = users.get("ada").await.unwrap();
        assert_eq!((read.version, &read.user.display_name), (33, &versions[&33]));
    }
}

/// The update is not done, and can be retried.
#[tokio::test]
async fn an_update_that_waits_too_long_for_a_lock_is_refused() {
    let env = TestEnv::shared().await;
    let short = Duration::from_millis(400);
    let users = env.serve_with(|config| config.postgres.postgres_statement_timeout = short.into()).await;
    users.create("ada").await.unwrap();
    let mut other = env.sql().await;
    let mut transaction = other.begin().await.unwrap();
    sqlx::query("SELECT FROM user_account FOR UPDATE").execute(&mut *transaction).await.unwrap();

    let refused = users.rename("ada", "second").await.unwrap_err();

    assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(refused.retry_after.is_some());
    transaction.rollback().await.unwrap();
    assert_eq!(users.rename("ada", "second").await.unwrap().version, 2);
}
