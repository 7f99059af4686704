//! Covers the reasons of the user service.

use tidings_proto::user as pb;
use tokio::join;

use super::{
    ReasonCoverage, call, call_until_reason, call_with_short_deadline, cover_server_reasons, cover_token_reasons,
    execute_sql, own_stack,
};
use crate::hostile::grpc_client::GrpcClient;
use crate::service::TestService;

fn create(id: &str, handle: &str, request_id: &str) -> pb::CreateUserRequest {
    let user = pb::User { id: id.to_owned(), handle: handle.to_owned(), ..Default::default() };
    pb::CreateUserRequest { user: Some(user), request_id: request_id.to_owned() }
}

fn get(id: &str, min_version: i64) -> pb::GetUserRequest {
    pb::GetUserRequest { id: id.to_owned(), min_version, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reason_of_user_is_covered() {
    let mut coverage = ReasonCoverage::new("user");
    let stack = own_stack().await;
    // A stopped Postgres holds one call, which is the limit of calls in flight.
    let flags = ["--max-in-flight", "1", "--postgres-statement-timeout", "500ms", "--user-watched-ids", "1"];
    let service = TestService::start_on(stack, "user", &flags, &[]).await;
    let client = GrpcClient::connect(service.address).await;
    call(&client, "CreateUser", &create("ada", "Ada", "r1")).await.unwrap();

    coverage.record("INVALID_FIELDS", call(&client, "GetUser", &get("no spaces", 0)).await);
    coverage.record("USER_NOT_FOUND", call(&client, "GetUser", &get("nobody", 0)).await);
    coverage.record("USER_ID_TAKEN", call(&client, "CreateUser", &create("ada", "Other", "")).await);
    coverage.record("HANDLE_TAKEN", call(&client, "CreateUser", &create("bob", "ada", "")).await);
    coverage.record("REQUEST_ID_REUSED", call(&client, "CreateUser", &create("bob", "Bob", "r1")).await);
    let delete = pb::DeleteUserRequest { id: "ada".to_owned(), expected_version: 7 };
    coverage.record("VERSION_MISMATCH", call(&client, "DeleteUser", &delete).await);
    coverage.record("VERSION_AHEAD", call(&client, "GetUser", &get("ada", 7)).await);
    let watch = pb::WatchUsersRequest { ids: vec!["ada".to_owned(), "bob".to_owned()] };
    coverage.record_with_retry("TOO_MANY_WATCHED", call(&client, "WatchUsers", &watch).await);
    cover_server_reasons(&mut coverage, &service, "GetUser", &get("ada", 0)).await;
    cover_token_reasons(&mut coverage, stack, "user", "GetUser").await;

    stack.postgres().pause();
    let late = call_with_short_deadline(&client, "GetUser", &get("late", 0)).await;
    let (one, other) = (get("one", 0), get("other", 0));
    let (one, other) = join!(call(&client, "GetUser", &one), call(&client, "GetUser", &other));
    let refused = if one.as_ref().is_err_and(|failure| failure.reason == "OVERLOADED") { one } else { other };
    let timed_out = call_until_reason(&client, "GetUser", &get("one", 0), "STORE_AWAY").await;
    stack.postgres().resume();
    let recovered = call_until_reason(&client, "GetUser", &get("nobody", 0), "USER_NOT_FOUND").await;
    coverage.record("DEADLINE_EXCEEDED", late);
    coverage.record_with_retry("STORE_AWAY", timed_out);
    coverage.record_with_retry("OVERLOADED", refused);
    coverage.record("USER_NOT_FOUND", recovered);

    execute_sql(stack, &service, "ALTER TABLE user_account RENAME TO gone").await;
    coverage.record("INTERNAL", call(&client, "GetUser", &get("uncached", 0)).await);

    coverage.assert_complete();
}
