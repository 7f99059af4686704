//! Every reason of `docs/errors.md` is reached: over the wire, in the real program, by what a caller, an operator or a broken
//! server can do. Two stand in the tests of a crate, where less is needed for them.

mod broadcast;
mod history;
mod lock;
mod reached;
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

use self::reached::Reached;
use crate::hostile::plain::Plain;
use crate::service::{SOON, Service};
use crate::support::{TIDINGS, root};

/// Reasons that another test reaches: the service, the reason, the file and the test.
const ELSEWHERE: [(&str, &str, &str, &str); 3] = [
    // 10,000 calls that wait.
    ("lock", "QUEUE_FULL", "crates/lock/tests/it/queue.rs", "a_full_queue_refuses_and_says_when_to_try_again"),
    // What ends a stream that its service does not end; Subscribe and WatchUsers say goodbye instead.
    ("broadcast", "DRAINING", "crates/server/tests/it/age.rs", STREAM_THAT_DOES_NOT_END),
    ("user", "DRAINING", "crates/server/tests/it/age.rs", STREAM_THAT_DOES_NOT_END),
];
const STREAM_THAT_DOES_NOT_END: &str = "a_stream_on_a_connection_of_that_age_ends_by_itself_or_is_told_draining";

#[test]
fn what_is_reached_elsewhere_is_reached_there() {
    for (service, reason, file, test) in ELSEWHERE {
        let source = fs::read_to_string(root().join(file)).unwrap();
        let (_, from_test) =
            source.split_once(&format!("fn {test}(")).unwrap_or_else(|| panic!("{file} has no {test}"));
        let (body, _) = from_test.split_once("\n}\n").unwrap();
        assert!(body.contains(&format!("\"{reason}\"")), "{test} does not reach {service} {reason}");
    }
}

/// Servers that a test may stop, for the rest of this process.
async fn own_stack() -> &'static Devstack {
    Box::leak(Box::new(Devstack::start(Options::temporary()).await.unwrap()))
}

/// The path of a method, e.g. `/tidings.user.v1.UserService/GetUser`.
fn path(short_name: &str) -> String {
    let method = METHODS.iter().find(|method| method.short_name() == short_name).unwrap();
    format!("/{}", method.name)
}

/// Calls a method.
async fn call(plain: &Plain, method: &str, request: &impl Message) -> Result<(), Failure> {
    plain.call(&path(method), &[], &request.encode_to_vec()).await
}

/// Reaches what the server itself says, whatever it serves: with calls of `method`, which answers this request.
async fn of_every_server(reached: &mut Reached, service: &Service, method: &str, request: &impl Message) {
    let plain = Plain::connect(service.address).await;
    let (path, request) = (path(method), request.encode_to_vec());
    plain.call(&path, &[], &request).await.unwrap();

    reached.note("UNDECODABLE", plain.call(&path, &[], b"\xff\xff").await);
    let unknown = format!("{path}OfNobody");
    reached.note("UNKNOWN_METHOD", plain.call(&unknown, &[], &request).await);
    reached.note("UNSUPPORTED_ENCODING", plain.call(&path, &[("grpc-encoding", "gzip")], &request).await);
    reached.note("INVALID_TIMEOUT", plain.call(&path, &[("grpc-timeout", "soon")], &request).await);
    reached.note("MESSAGE_TOO_LARGE", plain.call(&path, &[], &vec![0; 5 << 20]).await);
}

/// Reaches what is said to callers who are not known, or may not: `service` serves here, and asks for tokens.
async fn of_tokens(reached: &mut Reached, stack: &'static Devstack, name: &'static str, method: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (tokens, token) = (dir.path().join("tokens"), dir.path().join("token"));
    let other = if name == "user" { "lock:read" } else { "user:read" };
    let mut new = Command::new(TIDINGS);
    new.args(["token", "new", "--name", "other", "--scope", other, "--out"]).arg(&token).arg("--append").arg(&tokens);
    assert!(new.status().unwrap().success());
    let service = Service::on(stack, name, &["--token-file", tokens.to_str().unwrap()], &[]).await;
    let plain = Plain::connect(service.address).await;
    let bearer = format!("Bearer {}", fs::read_to_string(&token).unwrap().trim());

    reached.note("UNAUTHENTICATED", plain.call(&path(method), &[], &[]).await);
    reached.note("PERMISSION_DENIED", plain.call(&path(method), &[("authorization", &bearer)], &[]).await);
}

/// Calls a method whose answer has to wait for a server that stands still, longer than this caller does.
async fn hurried(plain: &Plain, method: &str, request: &impl Message) -> Result<(), Failure> {
    plain.call(&path(method), &[("grpc-timeout", "10m")], &request.encode_to_vec()).await
}

/// Repeats a call until it is answered so, as a server that has just stopped is not away at once.
async fn insist(plain: &Plain, method: &str, request: &impl Message, reason: &str) -> Result<(), Failure> {
    let deadline = Instant::now() + SOON;
    loop {
        let answer = call(plain, method, request).await;
        if Instant::now() > deadline || answer.as_ref().is_err_and(|failure| failure.reason == reason) {
            return answer;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Changes something in the database of a service behind its back.
async fn tamper(stack: &Devstack, service: &Service, statement: &'static str) {
    let mut postgres = PgConnection::connect(&stack.postgres().url(service.place())).await.unwrap();
    sqlx::raw_sql(statement).execute(&mut postgres).await.unwrap();
}

/// Puts a text where a service keeps something else.
fn overwrite(stack: &Devstack, service: &Service, key: &str) {
    let mut redis = redis::Client::open(stack.redis().url()).unwrap().get_connection().unwrap();
    let key = format!("{}:{key}", service.place());
    redis::cmd("SET").arg(key).arg("nonsense").exec(&mut redis).unwrap();
}
