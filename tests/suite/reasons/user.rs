//! The reasons of the user service.

use tidings_proto::user as pb;
use tokio::join;

use super::{Reached, call, hurried, of_every_server, of_tokens, own_stack, tamper};
use crate::hostile::plain::Plain;
use crate::service::Service;

fn create(id: &str, handle: &str, request_id: &str) -> pb::CreateUserRequest {
    let user = pb::User { id: id.to_owned(), handle: handle.to_owned(), ..Default::default() };
    pb::CreateUserRequest { user: Some(user), request_id: request_id.to_owned() }
}

fn get(id: &str, min_version: i64) -> pb::GetUserRequest {
    pb::GetUserRequest { id: id.to_owned(), min_version, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reason_of_user_is_reached() {
    let mut reached = Reached::of("user");
    let stack = own_stack().await;
    // So that one call is as much as it works on while Postgres stands still.
    let flags = ["--max-in-flight", "1", "--postgres-statement-timeout", "500ms", "--user-watched-ids", "1"];
    let service = Service::on(stack, "user", &flags, &[]).await;
    let plain = Plain::connect(service.address).await;
    call(&plain, "CreateUser", &create("ada", "Ada", "r1")).await.unwrap();

    reached.note("INVALID_FIELDS", call(&plain, "GetUser", &get("no spaces", 0)).await);
    reached.note("USER_NOT_FOUND", call(&plain, "GetUser", &get("nobody", 0)).await);
    reached.note("USER_ID_TAKEN", call(&plain, "CreateUser", &create("ada", "Other", "")).await);
    reached.note("HANDLE_TAKEN", call(&plain, "CreateUser", &create("bob", "ada", "")).await);
    reached.note("REQUEST_ID_REUSED", call(&plain, "CreateUser", &create("bob", "Bob", "r1")).await);
    let delete = pb::DeleteUserRequest { id: "ada".to_owned(), expected_version: 7 };
    reached.note("VERSION_MISMATCH", call(&plain, "DeleteUser", &delete).await);
    reached.note("VERSION_AHEAD", call(&plain, "GetUser", &get("ada", 7)).await);
    let watch = pb::WatchUsersRequest { ids: vec!["ada".to_owned(), "bob".to_owned()] };
    reached.note_retry("TOO_MANY_WATCHED", call(&plain, "WatchUsers", &watch).await);
    of_every_server(&mut reached, &service, "GetUser", &get("ada", 0)).await;
    of_tokens(&mut reached, stack, "user", "GetUser").await;

    stack.postgres().pause();
    let late = hurried(&plain, "GetUser", &get("late", 0)).await;
    let (one, other) = (get("one", 0), get("other", 0));
    let (one, other) = join!(call(&plain, "GetUser", &one), call(&plain, "GetUser", &other));
    stack.postgres().resume();
    let (waited, refused) =
        if one.as_ref().is_err_and(|failure| failure.reason == "OVERLOADED") { (other, one) } else { (one, other) };
    reached.note("DEADLINE_EXCEEDED", late);
    reached.note_retry("STORE_AWAY", waited);
    reached.note_retry("OVERLOADED", refused);

    tamper(stack, &service, "ALTER TABLE user_account RENAME TO gone").await;
    reached.note("INTERNAL", call(&plain, "GetUser", &get("somebody", 0)).await);

    reached.assert_all();
}
