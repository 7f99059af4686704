//! Creation of users: retries, conflicts, races.

use tidings_proto::user as pb;
use tidings_status::Failure;
use tonic::Code;

use super::support::{TestEnv, UserInstance, into_result, named};

async fn create(users: &UserInstance, user: pb::User, request_id: &str) -> Result<(pb::User, bool), Failure> {
    let request = pb::CreateUserRequest { user: Some(user), request_id: request_id.to_owned() };
    let created = users.call_create(request).await?;
    Ok((created.user.unwrap(), created.deduplicated))
}

fn with_handle(id: &str, handle: &str) -> pb::User {
    pb::User { handle: handle.to_owned(), ..named(id, "") }
}

#[tokio::test]
async fn a_retry_by_id_returns_the_current_user() {
    let users = UserInstance::start().await;
    let (first, _) = create(&users, named("ada", "Ada"), "").await.unwrap();

    let (again, deduplicated) = create(&users, named("ada", "Ada"), "").await.unwrap();
    assert!(deduplicated);
    assert_eq!(again, first);

    let changed = users.rename("ada", "Countess").await.unwrap();
    let (later, deduplicated) = create(&users, named("ada", "Ada"), "").await.unwrap();
    assert!(deduplicated);
    assert_eq!(later, changed);
}

#[tokio::test]
async fn fields_set_by_the_server_do_not_matter_to_a_retry() {
    let users = UserInstance::start().await;
    let (first, _) = create(&users, named("ada", "Ada"), "").await.unwrap();

    let (again, deduplicated) = create(&users, pb::User { version: 9, ..first.clone() }, "").await.unwrap();

    assert!(deduplicated);
    assert_eq!(again, first);
}

#[tokio::test]
async fn another_content_under_the_same_id_is_refused() {
    let users = UserInstance::start().await;
    create(&users, named("ada", "Ada"), "").await.unwrap();

    let refused = create(&users, named("ada", "Another"), "").await.unwrap_err();

    assert_eq!((refused.code, refused.reason.as_str()), (Code::AlreadyExists, "USER_ID_TAKEN"));
    assert_eq!(users.get("ada").await.unwrap().user.display_name, "Ada");
}

/// Other content under the same request id is refused.
#[tokio::test]
async fn a_retry_by_request_id_is_deduplicated() {
    let env = TestEnv::shared().await;
    let users = env.serve().await;
    let (first, deduplicated) = create(&users, named("", "Ada"), "r-1").await.unwrap();
    assert!(!deduplicated);
    assert_eq!(uuid::Uuid::parse_str(&first.id).unwrap().get_version_num(), 7);

    let (again, deduplicated) = create(&users, named("", "Ada"), "r-1").await.unwrap();
    assert!(deduplicated);
    assert_eq!(again, first);

    for other in [named("", "Another"), named("ada", "Ada")] {
        let refused = create(&users, other, "r-1").await.unwrap_err();
        assert_eq!((refused.code, refused.reason.as_str()), (Code::AlreadyExists, "REQUEST_ID_REUSED"));
    }
    let refused = create(&users, named(&first.id, "Ada"), "r-2").await.unwrap_err();
    assert_eq!(refused.reason, "USER_ID_TAKEN");
    assert_eq!(env.count("SELECT count(*) FROM user_account").await, 1);
}

#[tokio::test]
async fn without_id_and_request_id_every_call_creates_a_user() {
    let users = UserInstance::start().await;

    let (one, _) = create(&users, named("", "Ada"), "").await.unwrap();
    let (two, deduplicated) = create(&users, named("", "Ada"), "").await.unwrap();

    assert!(!deduplicated);
    assert_ne!(one.id, two.id);
}

#[tokio::test]
async fn a_handle_is_unique_ignoring_case_and_stored_as_written() {
    let users = UserInstance::start().await;
    let (ada, _) = create(&users, with_handle("ada", "Ada.L"), "").await.unwrap();
    assert_eq!(ada.handle, "Ada.L");
    create(&users, with_handle("bob", ""), "").await.unwrap();
    create(&users, with_handle("cleo", ""), "").await.unwrap();

    let created = create(&users, with_handle("other", "aDA.l"), "").await.unwrap_err();
    let user = with_handle("bob", "ADA.L");
    let changed = users.call_update(super::support::changing(user, &["handle"])).await.unwrap_err();

    for refused in [created, changed] {
        assert_eq!((refused.code, refused.reason.as_str()), (Code::AlreadyExists, "HANDLE_TAKEN"));
    }
    let user = with_handle("ada", "ADA.l");
    assert_eq!(users.call_update(super::support::changing(user, &["handle"])).await.unwrap().handle, "ADA.l");
}

#[tokio::test]
async fn a_deleted_id_stays_taken_and_its_handle_is_free_again() {
    let users = UserInstance::start().await;
    create(&users, with_handle("ada", "ada"), "r-1").await.unwrap();
    users.delete("ada").await.unwrap();

    let by_id = create(&users, with_handle("ada", "ada"), "").await.unwrap_err();
    let by_request = create(&users, with_handle("ada", "ada"), "r-1").await.unwrap_err();

    assert_eq!(by_id.reason, "USER_ID_TAKEN");
    assert_eq!(by_request.reason, "REQUEST_ID_REUSED");
    create(&users, with_handle("bob", "ADA"), "").await.unwrap();
}

/// Makes 32 equal concurrent calls to two instances; returns the responses.
async fn at_once(env: &TestEnv, request: &pb::CreateUserRequest) -> Vec<pb::CreateUserResponse> {
    let (here, there) = (env.serve().await, env.serve().await);
    let calls: Vec<_> = (0..32)
        .map(|number| {
            let mut client = if number % 2 == 0 { here.client() } else { there.client() };
            let request = request.clone();
            tokio::spawn(async move { into_result(client.create_user(request).await) })
        })
        .collect();
    let mut responses = Vec::new();
    for call in calls {
        responses.push(call.await.unwrap().unwrap());
    }
    responses
}

#[tokio::test]
async fn concurrent_creations_of_one_id_create_one_user() {
    let env = TestEnv::shared().await;
    let request = pb::CreateUserRequest { user: Some(with_handle("ada", "ada")), ..Default::default() };

    let responses = at_once(&env, &request).await;

    assert_eq!(responses.iter().filter(|response| !response.deduplicated).count(), 1);
    assert!(responses.iter().all(|response| response.user == responses[0].user));
    assert_eq!(env.count("SELECT count(*) FROM user_account").await, 1);
}

#[tokio::test]
async fn concurrent_creations_with_one_request_id_create_one_user() {
    let env = TestEnv::shared().await;
    let request = pb::CreateUserRequest { user: Some(named("", "Ada")), request_id: "r-1".to_owned() };

    let responses = at_once(&env, &request).await;

    assert_eq!(responses.iter().filter(|response| !response.deduplicated).count(), 1);
    assert!(responses.iter().all(|response| response.user == responses[0].user));
    assert_eq!(env.count("SELECT count(*) FROM user_account").await, 1);
}
