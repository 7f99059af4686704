//! Creating users: repeats, collisions, races.

use tidings_proto::user as pb;
use tidings_status::Failure;
use tonic::Code;

use super::support::{Users, World, named, told};

async fn create(users: &Users, user: pb::User, request_id: &str) -> Result<(pb::User, bool), Failure> {
    let request = pb::CreateUserRequest { user: Some(user), request_id: request_id.to_owned() };
    let created = users.call_create(request).await?;
    Ok((created.user.unwrap(), created.deduplicated))
}

fn with_handle(id: &str, handle: &str) -> pb::User {
    pb::User { handle: handle.to_owned(), ..named(id, "") }
}

#[tokio::test]
async fn a_repeat_by_id_answers_with_the_user_as_it_is_now() {
    let users = Users::start().await;
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
async fn what_the_server_sets_makes_no_difference_to_a_repeat() {
    let users = Users::start().await;
    let (first, _) = create(&users, named("ada", "Ada"), "").await.unwrap();

    let (again, deduplicated) = create(&users, pb::User { version: 9, ..first.clone() }, "").await.unwrap();

    assert!(deduplicated);
    assert_eq!(again, first);
}

#[tokio::test]
async fn another_content_under_the_same_id_is_refused() {
    let users = Users::start().await;
    create(&users, named("ada", "Ada"), "").await.unwrap();

    let refused = create(&users, named("ada", "Another"), "").await.unwrap_err();

    assert_eq!((refused.code, refused.reason.as_str()), (Code::AlreadyExists, "USER_ID_TAKEN"));
    assert_eq!(users.get("ada").await.unwrap().user.display_name, "Ada");
}

#[tokio::test]
async fn a_repeat_by_request_id_answers_with_the_same_user_and_other_content_is_refused() {
    let world = World::shared().await;
    let users = world.serve().await;
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
    assert_eq!(world.count("SELECT count(*) FROM user_account").await, 1);
}

#[tokio::test]
async fn without_id_and_request_id_every_call_makes_another_user() {
    let users = Users::start().await;

    let (one, _) = create(&users, named("", "Ada"), "").await.unwrap();
    let (two, deduplicated) = create(&users, named("", "Ada"), "").await.unwrap();

    assert!(!deduplicated);
    assert_ne!(one.id, two.id);
}

#[tokio::test]
async fn a_handle_is_unique_whatever_its_case_and_kept_as_written() {
    let users = Users::start().await;
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
    let users = Users::start().await;
    create(&users, with_handle("ada", "ada"), "r-1").await.unwrap();
    users.delete("ada").await.unwrap();

    let by_id = create(&users, with_handle("ada", "ada"), "").await.unwrap_err();
    let by_request = create(&users, with_handle("ada", "ada"), "r-1").await.unwrap_err();

    assert_eq!(by_id.reason, "USER_ID_TAKEN");
    assert_eq!(by_request.reason, "REQUEST_ID_REUSED");
    create(&users, with_handle("bob", "ADA"), "").await.unwrap();
}

/// Makes 32 equal calls at once to two instances and returns the users that were answered.
async fn at_once(world: &World, request: &pb::CreateUserRequest) -> Vec<pb::CreateUserResponse> {
    let (here, there) = (world.serve().await, world.serve().await);
    let calls: Vec<_> = (0..32)
        .map(|number| {
            let mut client = if number % 2 == 0 { here.client() } else { there.client() };
            let request = request.clone();
            tokio::spawn(async move { told(client.create_user(request).await) })
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap().unwrap());
    }
    answers
}

#[tokio::test]
async fn many_creations_of_one_id_at_once_make_one_user() {
    let world = World::shared().await;
    let request = pb::CreateUserRequest { user: Some(with_handle("ada", "ada")), ..Default::default() };

    let answers = at_once(&world, &request).await;

    assert_eq!(answers.iter().filter(|answer| !answer.deduplicated).count(), 1);
    assert!(answers.iter().all(|answer| answer.user == answers[0].user));
    assert_eq!(world.count("SELECT count(*) FROM user_account").await, 1);
}

#[tokio::test]
async fn many_creations_under_one_request_id_at_once_make_one_user() {
    let world = World::shared().await;
    let request = pb::CreateUserRequest { user: Some(named("", "Ada")), request_id: "r-1".to_owned() };

    let answers = at_once(&world, &request).await;

    assert_eq!(answers.iter().filter(|answer| !answer.deduplicated).count(), 1);
    assert!(answers.iter().all(|answer| answer.user == answers[0].user));
    assert_eq!(world.count("SELECT count(*) FROM user_account").await, 1);
}
