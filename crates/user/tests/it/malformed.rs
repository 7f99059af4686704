//! Malformed requests: all malformed fields are named in one error, and nothing is stored.

use std::collections::BTreeMap;

use tidings_proto::user as pb;
use tidings_status::Failure;
use tonic::Code;

use super::support::{TestEnv, changing, named};

fn fields(failure: &Failure) -> Vec<&str> {
    assert_eq!((failure.code, failure.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELDS"));
    failure.violations.iter().map(|violation| violation.field.as_str()).collect()
}

/// A user with every field at its limit.
fn largest() -> pb::User {
    let mut attributes: BTreeMap<_, _> = (0..31).map(|n| (format!("{n:064}"), "v".repeat(64))).collect();
    attributes.insert("k".repeat(64), "v".repeat(4096 - 31 * 128 - 64));
    pb::User {
        id: format!("{}.-~_Az09", "i".repeat(56)),
        handle: format!("{}.-_", "H".repeat(29)),
        display_name: "é".repeat(128),
        age: Some(150),
        avatar_uri: "u".repeat(2048),
        bio: "b".repeat(4096),
        attributes,
        ..Default::default()
    }
}

/// A user with every field one above its limit.
fn too_large() -> pb::User {
    let mut user = largest();
    user.id.push('i');
    user.handle.push('H');
    user.display_name.push('x');
    user.age = Some(151);
    user.avatar_uri.push('u');
    user.bio.push('b');
    user.attributes.get_mut(&"k".repeat(64)).unwrap().push('v');
    user
}

/// Nothing is stored.
#[tokio::test]
async fn all_fields_above_their_limits_are_named_at_once() {
    let env = TestEnv::shared().await;
    let users = env.serve().await;
    let mut user = too_large();
    let request_id = "r".repeat(65);
    let expected =
        ["id", "handle", "display_name", "age", "avatar_uri", "bio", "attributes"].map(|field| format!("user.{field}"));

    let refused = users.call_create(pb::CreateUserRequest { user: Some(user.clone()), request_id }).await.unwrap_err();
    assert_eq!(fields(&refused)[0], "request_id");
    assert_eq!(fields(&refused)[1..], expected);

    user.age = Some(-1);
    let change = pb::UpdateUserRequest { expected_version: -1, ..changing(user, &["version", "id", "", "bio.x"]) };
    let refused = users.call_update(change).await.unwrap_err();
    let mask = ["expected_version", "update_mask", "update_mask", "update_mask", "update_mask"];
    assert_eq!(fields(&refused)[..5], mask);
    assert_eq!(fields(&refused)[5..], expected);

    assert_eq!(env.count("SELECT count(*) FROM user_account").await, 0);
    assert_eq!(env.count("SELECT count(*) FROM cache_outbox").await, 0);
}

/// Postgres cannot store it.
#[tokio::test]
async fn nul_is_refused_in_every_text() {
    let env = TestEnv::shared().await;
    let users = env.serve().await;
    let nul = || "a\0b".to_owned();
    let user = pb::User {
        id: nul(),
        handle: nul(),
        display_name: nul(),
        avatar_uri: nul(),
        bio: nul(),
        attributes: BTreeMap::from([("name".to_owned(), nul())]),
        ..Default::default()
    };

    let refused = users.call_create(pb::CreateUserRequest { user: Some(user), request_id: nul() }).await.unwrap_err();
    let in_name = pb::User { attributes: BTreeMap::from([(nul(), String::new())]), ..named("ada", "") };
    let request = pb::CreateUserRequest { user: Some(in_name), ..Default::default() };
    let refused_name = users.call_create(request).await.unwrap_err();

    let expected =
        ["request_id", "user.id", "user.handle", "user.display_name", "user.avatar_uri", "user.bio", "user.attributes"];
    assert_eq!(fields(&refused), expected);
    assert_eq!(fields(&refused_name), ["user.attributes"]);
    assert_eq!(env.count("SELECT count(*) FROM user_account").await, 0);
}

#[tokio::test]
async fn attributes_have_three_limits() {
    let users = TestEnv::shared().await.serve().await;
    let many: BTreeMap<_, _> = (0..33).map(|n| (n.to_string(), String::new())).collect();
    let nameless = BTreeMap::from([(String::new(), "value".to_owned())]);
    let long_name = BTreeMap::from([("n".repeat(65), String::new())]);

    for attributes in [many, nameless, long_name] {
        let user = pb::User { attributes, ..named("ada", "") };
        let request = pb::CreateUserRequest { user: Some(user.clone()), ..Default::default() };
        assert_eq!(fields(&users.call_create(request).await.unwrap_err()), ["user.attributes"]);
        let change = changing(user, &["attributes"]);
        assert_eq!(fields(&users.call_update(change).await.unwrap_err()), ["user.attributes"]);
    }
}

#[tokio::test]
async fn malformed_reads_are_refused() {
    let users = TestEnv::shared().await.serve().await;

    let get = pb::GetUserRequest { id: "no spaces".to_owned(), min_version: -1, consistency: 99 };
    assert_eq!(fields(&users.call_get(get).await.unwrap_err()), ["id", "min_version", "consistency"]);
    let get = pb::GetUserRequest { id: String::new(), ..Default::default() };
    assert_eq!(fields(&users.call_get(get).await.unwrap_err()), ["id"]);

    let mut ids: Vec<_> = (0..501).map(|number| number.to_string()).collect();
    ids[3] = "{braces}".to_owned();
    ids[7] = String::new();
    let batch = pb::BatchGetUsersRequest { ids, consistency: -1 };
    let refused = users.call_batch(batch).await.unwrap_err();
    assert_eq!(fields(&refused), ["ids", "ids[3,7]", "consistency"]);
}

#[tokio::test]
async fn malformed_deletions_and_empty_requests_are_refused() {
    let users = TestEnv::shared().await.serve().await;

    let delete = pb::DeleteUserRequest { id: "a/b".to_owned(), expected_version: -1 };
    assert_eq!(fields(&users.call_delete(delete).await.unwrap_err()), ["id", "expected_version"]);
    assert_eq!(fields(&users.call_create(pb::CreateUserRequest::default()).await.unwrap_err()), ["user"]);
    let refused = users.call_update(pb::UpdateUserRequest::default()).await.unwrap_err();
    assert_eq!(fields(&refused), ["update_mask", "user.id"]);
}
