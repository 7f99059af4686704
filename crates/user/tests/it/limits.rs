//! Fields of all requests at their limits, and one above.

use std::collections::BTreeMap;

use tidings_proto::user as pb;
use tidings_proto::user::read_info::Source;
use tidings_status::Failure;
use tonic::Code;

use super::support::{SOON, TestEnv, UserInstance, changing, eventually, named};

const FIELDS: [&str; 6] = ["handle", "display_name", "age", "avatar_uri", "bio", "attributes"];

/// A character of four bytes, the maximum in handles.
const LONG: &str = "𐐷";

/// 32 attributes with names of the maximum length, and of the maximum size in total.
fn attributes() -> BTreeMap<String, String> {
    (0..32).map(|number| (format!("{number:064}"), "v".repeat(64))).collect()
}

/// A user with every field at its limit.
fn largest() -> pb::User {
    pb::User {
        id: format!("{}.-~_Az09", "i".repeat(56)),
        handle: format!("{}.-_", LONG.repeat(29)),
        display_name: "é".repeat(128),
        age: Some(150),
        avatar_uri: "ü".repeat(1024),
        bio: "☕".repeat(1365) + ".",
        attributes: attributes(),
        ..Default::default()
    }
}

/// A field, and a function that makes its value exceed the limit by one.
type Excess = (&'static str, fn(&mut pb::User));

/// All excesses of the fields of a user.
const EXCESSES: [Excess; 14] = [
    ("id", |user| user.id.push('i')),
    ("id", |user| "i/d".clone_into(&mut user.id)),
    ("handle", |user| user.handle.push_str(LONG)),
    ("handle", |user| user.handle.push('a')),
    ("handle", |user| "a\u{200d}b".clone_into(&mut user.handle)),
    ("display_name", |user| user.display_name.push('x')),
    ("age", |user| user.age = Some(151)),
    ("age", |user| user.age = Some(-1)),
    ("avatar_uri", |user| user.avatar_uri.push('u')),
    ("bio", |user| user.bio.push('b')),
    ("attributes", |user| user.attributes.values_mut().next().unwrap().push('v')),
    ("attributes", |user| user.attributes = BTreeMap::from([(String::new(), String::new())])),
    ("attributes", |user| {
        user.attributes = (0..33).map(|number| (number.to_string(), String::new())).collect();
    }),
    ("attributes", |user| user.attributes = BTreeMap::from([("n".repeat(65), String::new())])),
];

fn create(user: pb::User, request_id: String) -> pb::CreateUserRequest {
    pb::CreateUserRequest { user: Some(user), request_id }
}

fn expect_refused<T: std::fmt::Debug>(answer: Result<T, Failure>, field: &str) {
    let failure = answer.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELDS"), "{field}");
    let named: Vec<_> = failure.violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(named, [field]);
}

/// Reads a user by every RPC and from every layer.
async fn expect_everywhere(users: &UserInstance, user: &pb::User) {
    for source in [Source::Postgres, Source::Redis, Source::LocalCache] {
        eventually(&format!("{source:?} answers"), SOON, async || {
            let read = match source {
                Source::Postgres => users.get_strong(&user.id).await.unwrap(),
                _ => users.get(&user.id).await.unwrap(),
            };
            assert_eq!(&read.user, user);
            read.source == source
        })
        .await;
    }
    assert_eq!(users.by_handle(&user.handle).await.unwrap().user, *user);
    assert_eq!(users.batch(&[&user.id]).await.unwrap()[0].user.as_ref(), Some(user));
    for handle_prefix in [String::new(), user.handle.clone()] {
        let request = pb::ListUsersRequest { handle_prefix, page_size: 500, ..Default::default() };
        assert_eq!(users.call_list(request).await.unwrap().users, std::slice::from_ref(user));
    }
}

/// Postgres, Redis and the local cache return it unchanged.
#[tokio::test]
async fn a_user_with_every_field_at_its_limit_is_stored_and_read() {
    let env = TestEnv::shared().await;
    let users = env.serve_from_local_cache().await;

    let user = users.call_create(create(largest(), "r".repeat(64))).await.unwrap().user.unwrap();
    assert_eq!(pb::User { version: 0, create_time: None, update_time: None, ..user.clone() }, largest());
    assert_eq!((user.handle.chars().count(), user.handle.len()), (32, 119));
    expect_everywhere(&users, &user).await;

    let smallest = pb::User { id: user.id.clone(), handle: "-".to_owned(), age: Some(0), ..Default::default() };
    let changed = users.call_update(changing(smallest.clone(), &FIELDS)).await.unwrap();
    assert_eq!(pb::User { version: 0, create_time: None, update_time: None, ..changed.clone() }, smallest);
    expect_everywhere(&users, &changed).await;

    let back = users.call_update(changing(largest(), &FIELDS)).await.unwrap();
    expect_everywhere(&users, &back).await;
}

/// Nothing is stored.
#[tokio::test]
async fn each_field_one_above_its_limit_is_refused_by_itself() {
    let env = TestEnv::shared().await;
    let users = env.serve_without_relay().await;
    for (field, exceed) in EXCESSES {
        let mut user = largest();
        exceed(&mut user);
        expect_refused(users.call_create(create(user, String::new())).await, &format!("user.{field}"));
    }
    expect_refused(users.call_create(create(largest(), "r".repeat(65))).await, "request_id");
    expect_refused(users.call_create(create(largest(), "r/1".to_owned())).await, "request_id");
    assert_eq!(env.count("SELECT count(*) FROM user_account").await, 0);
    assert_eq!(env.count("SELECT count(*) FROM cache_outbox").await, 0);

    let user = users.call_create(create(largest(), String::new())).await.unwrap().user.unwrap();
    for (field, exceed) in EXCESSES {
        let mut change = largest();
        exceed(&mut change);
        expect_refused(users.call_update(changing(change, &FIELDS)).await, &format!("user.{field}"));
    }
    for wrong in ["id", "version", "create_time", "update_time", "nothing", "*", "Bio", "attributes.x", ""] {
        expect_refused(users.call_update(changing(largest(), &["bio", wrong])).await, "update_mask");
    }
    expect_refused(users.call_update(changing(largest(), &[])).await, "update_mask");
    let below = pb::UpdateUserRequest { expected_version: -1, ..changing(largest(), &["bio"]) };
    expect_refused(users.call_update(below).await, "expected_version");
    assert_eq!(users.get_strong(&user.id).await.unwrap().user, user);
}

#[tokio::test]
async fn the_largest_version_is_accepted_and_negative_ones_refused() {
    let users = TestEnv::shared().await.serve().await;
    users.create_with_handle("ada", "ada").await.unwrap();
    let reasons = |failure: Failure| failure.reason;
    let get = |min_version| pb::GetUserRequest { id: "ada".to_owned(), min_version, ..Default::default() };
    let by_handle =
        |min_version| pb::GetUserByHandleRequest { handle: "ada".to_owned(), min_version, ..Default::default() };
    let update = |expected_version| pb::UpdateUserRequest { expected_version, ..changing(named("ada", "x"), &["bio"]) };
    let delete = |expected_version| pb::DeleteUserRequest { id: "ada".to_owned(), expected_version };

    assert_eq!(users.call_get(get(i64::MAX)).await.map_err(reasons).unwrap_err(), "VERSION_AHEAD");
    assert_eq!(users.call_by_handle(by_handle(i64::MAX)).await.map_err(reasons).unwrap_err(), "VERSION_AHEAD");
    assert_eq!(users.call_update(update(i64::MAX)).await.map_err(reasons).unwrap_err(), "VERSION_MISMATCH");
    assert_eq!(users.call_delete(delete(i64::MAX)).await.map_err(reasons).unwrap_err(), "VERSION_MISMATCH");
    for below in [-1, i64::MIN] {
        expect_refused(users.call_get(get(below)).await, "min_version");
        expect_refused(users.call_by_handle(by_handle(below)).await, "min_version");
        expect_refused(users.call_update(update(below)).await, "expected_version");
        expect_refused(users.call_delete(delete(below)).await, "expected_version");
    }
    assert_eq!(users.get_strong("ada").await.unwrap().version, 1);
}

/// The ids of deletions have them, too.
#[tokio::test]
async fn ids_and_handles_of_reads_have_the_limits_of_stored_ones() {
    let users = TestEnv::shared().await.serve().await;
    let (id, handle) = ("i".repeat(64), LONG.repeat(32));
    users.create_with_handle(&id, &handle).await.unwrap();

    assert_eq!(users.get(&id).await.unwrap().user.handle, handle);
    assert_eq!(users.by_handle(&handle).await.unwrap().user.id, id);
    for wrong in ["i".repeat(65), String::new(), "é".to_owned(), "a b".to_owned(), "a\0".to_owned()] {
        expect_refused(users.get(&wrong).await, "id");
        expect_refused(users.delete(&wrong).await, "id");
        expect_refused(users.batch(&["fine", &*wrong]).await, "ids[1]");
    }
    for wrong in [LONG.repeat(33), "a".repeat(33), "a".repeat(200_000), "a b".to_owned(), "a\0".to_owned()] {
        expect_refused(users.by_handle(&wrong).await, "handle");
        let request = pb::ListUsersRequest { handle_prefix: wrong, ..Default::default() };
        expect_refused(users.call_list(request).await, "handle_prefix");
    }
    expect_refused(users.by_handle("").await, "handle");

    for (consistency, right) in [(-1, false), (0, true), (1, true), (2, true), (3, false), (i32::MAX, false)] {
        let get = pb::GetUserRequest { id: id.clone(), consistency, ..Default::default() };
        let by_handle = pb::GetUserByHandleRequest { handle: handle.clone(), consistency, ..Default::default() };
        let batch = pb::BatchGetUsersRequest { ids: vec![id.clone()], consistency };
        if right {
            users.call_get(get).await.unwrap();
            users.call_by_handle(by_handle).await.unwrap();
            users.call_batch(batch).await.unwrap();
        } else {
            expect_refused(users.call_get(get).await, "consistency");
            expect_refused(users.call_by_handle(by_handle).await, "consistency");
            expect_refused(users.call_batch(batch).await, "consistency");
        }
    }
}

#[tokio::test]
async fn a_handle_is_composed_and_unique_under_case_folding() {
    let users = TestEnv::shared().await.serve().await;
    let user = users.create_with_handle("ada", "Gru\u{308}ße").await.unwrap();
    assert_eq!(user.handle, "Grüße");

    for handle in ["Grüße", "GRÜSSE", "gru\u{308}sse", "GRÜẞE"] {
        assert_eq!(users.by_handle(handle).await.unwrap().user.id, "ada", "{handle}");
        let taken = users.create_with_handle("bob", handle).await.unwrap_err();
        assert_eq!(taken.reason, "HANDLE_TAKEN", "{handle}");
    }
    for handle_prefix in ["GRÜS", "gru\u{308}", "grüß"] {
        let request = pb::ListUsersRequest { handle_prefix: handle_prefix.to_owned(), ..Default::default() };
        assert_eq!(users.call_list(request).await.unwrap().users, std::slice::from_ref(&user), "{handle_prefix}");
    }
    // A decomposed handle is the same content: a retry.
    let request = |handle: &str| create(pb::User { handle: handle.to_owned(), ..named("cleo", "") }, String::new());
    users.call_create(request("Å")).await.unwrap();
    assert!(users.call_create(request("A\u{30a}")).await.unwrap().deduplicated);
}
