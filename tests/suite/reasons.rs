//! Covers every reason of `docs/errors.md` with a call to a real process, in situations that
//! callers, operators or broken servers can cause. Tests of other crates cover the reasons in
//! [`ELSEWHERE`].

mod broadcast;
mod coverage;
mod history;
mod lock;
mod user;

use std::fs;
use std::process::Command;
use std::time::Duration;

use prost::Message;
use sqlx::{Connection as _, PgConnection};
use tidings_devstack::{Devstack, Options};
use tidings_proto::METHODS;
use tidings_status::Failure;
use tokio::time::{Instant, sleep};

use self::coverage::ReasonCoverage;
use crate::hostile::grpc_client::GrpcClient;
use crate::service::{MAX_WAIT, TestService};
use crate::support::{TIDINGS, root};

/// Reasons that other tests cover: service, reason, file, test.
const ELSEWHERE: [(&str, &str, &str, &str); 3] = [
    // Needs 10,000 waiting calls.
    ("lock", "QUEUE_FULL", "crates/lock/tests/it/queue.rs", "a_full_queue_refuses_with_a_retry_delay"),
    // Needs a stream that its service does not end; Subscribe and WatchUsers send a Goodbye
    // instead.
    ("broadcast", "DRAINING", "crates/server/tests/it/connection_age.rs", AGED_STREAM),
    ("user", "DRAINING", "crates/server/tests/it/connection_age.rs", AGED_STREAM),
];
const AGED_STREAM: &str = "a_stream_on_an_aged_connection_ends_or_gets_draining";

#[test]
fn reasons_covered_elsewhere_appear_in_the_named_tests() {
    for (service, reason, file, test) in ELSEWHERE {
        let source = fs::read_to_string(root().join(file)).unwrap();
        let (_, from_test) =
            source.split_once(&format!("fn {test}(")).unwrap_or_else(|| panic!("{file} has no {test}"));
        let (body, _) = from_test.split_once("\n}\n").unwrap();
        assert!(body.contains(&format!("\"{reason}\"")), "{test} does not cover {service} {reason}");
    }
}

/// Starts a Postgres and a Redis that a test may stop; they run until this process ends.
async fn own_stack() -> &'static Devstack {
    Box::leak(Box::new(Devstack::start(Options::temporary()).await.unwrap()))
}

/// Returns the path of a method, e.g. `/tidings.user.v1.UserService/GetUser`.
fn path(short_name: &str) -> String {
    let method = METHODS.iter().find(|method| method.short_name() == short_name).unwrap();
    format!("/{}", method.name)
}

/// Calls a method by its short name, e.g. `GetUser`.
async fn call(client: &GrpcClient, method: &str, request: &impl Message) -> Result<(), Failure> {
    client.call(&path(method), &[], &request.encode_to_vec()).await
}

/// Covers the reasons that every server has, with calls of a method for which `request` is valid.
async fn cover_server_reasons(
    coverage: &mut ReasonCoverage,
    service: &TestService,
    method: &str,
    request: &impl Message,
) {
    let client = GrpcClient::connect(service.address).await;
    let (path, request) = (path(method), request.encode_to_vec());
    client.call(&path, &[], &request).await.unwrap();

    coverage.record("UNDECODABLE", client.call(&path, &[], b"\xff\xff").await);
    let unknown = format!("{path}OfNobody");
    coverage.record("UNKNOWN_METHOD", client.call(&unknown, &[], &request).await);
    coverage.record("UNSUPPORTED_ENCODING", client.call(&path, &[("grpc-encoding", "gzip")], &request).await);
    coverage.record("INVALID_TIMEOUT", client.call(&path, &[("grpc-timeout", "soon")], &request).await);
    coverage.record("MESSAGE_TOO_LARGE", client.call(&path, &[], &vec![0; 5 << 20]).await);
}

/// Covers missing and insufficient tokens, with another instance that requires tokens.
async fn cover_token_reasons(
    coverage: &mut ReasonCoverage,
    stack: &'static Devstack,
    name: &'static str,
    method: &str,
) {
    let dir = tempfile::tempdir().unwrap();
    let (tokens, token) = (dir.path().join("tokens"), dir.path().join("token"));
    let other = if name == "user" { "lock:read" } else { "user:read" };
    let mut new = Command::new(TIDINGS);
    new.args(["token", "new", "--name", "other", "--scope", other, "--out"]).arg(&token).arg("--append").arg(&tokens);
    assert!(new.status().unwrap().success());
    let service = TestService::start_on(stack, name, &["--token-file", tokens.to_str().unwrap()], &[]).await;
    let client = GrpcClient::connect(service.address).await;
    let bearer = format!("Bearer {}", fs::read_to_string(&token).unwrap().trim());

    coverage.record("UNAUTHENTICATED", client.call(&path(method), &[], &[]).await);
    coverage.record("PERMISSION_DENIED", client.call(&path(method), &[("authorization", &bearer)], &[]).await);
}

/// Calls a method with a deadline of 10 ms, which expires while a stopped server does not reply.
async fn call_with_short_deadline(client: &GrpcClient, method: &str, request: &impl Message) -> Result<(), Failure> {
    client.call(&path(method), &[("grpc-timeout", "10m")], &request.encode_to_vec()).await
}

/// Repeats a call until it fails with a reason: a service takes some time to notice that a server
/// has stopped. Returns the last result.
async fn call_until_reason(
    client: &GrpcClient,
    method: &str,
    request: &impl Message,
    reason: &str,
) -> Result<(), Failure> {
    let deadline = Instant::now() + MAX_WAIT;
    loop {
        let result = call(client, method, request).await;
        if Instant::now() > deadline || result.as_ref().is_err_and(|failure| failure.reason == reason) {
            return result;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Runs a statement in the database of a service.
async fn execute_sql(stack: &Devstack, service: &TestService, statement: &'static str) {
    let mut postgres = PgConnection::connect(&stack.postgres().url(service.database())).await.unwrap();
    sqlx::raw_sql(statement).execute(&mut postgres).await.unwrap();
}

/// Replaces a key of a service with a string that is not valid there.
fn overwrite_key(stack: &Devstack, service: &TestService, key: &str) {
    let mut redis = redis::Client::open(stack.redis().url()).unwrap().get_connection().unwrap();
    let key = format!("{}:{key}", service.redis_prefix());
    redis::cmd("SET").arg(key).arg("nonsense").exec(&mut redis).unwrap();
}
