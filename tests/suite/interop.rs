//! Clients that nobody here wrote.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use crate::support::{Up, finish, stderr};

#[test]
fn buf_curl_learns_the_contract_by_reflection_and_calls() {
    if Command::new("buf").arg("--version").output().is_err() {
        eprintln!("buf_curl_learns_the_contract_by_reflection_and_calls: skipped, buf is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path());
    let call = |service: &str, method: &str, request: &str| {
        let url = format!("http://{}/{method}", up.address(service));
        let output = finish(Command::new("buf").args([
            "curl",
            "--protocol",
            "grpc",
            "--http2-prior-knowledge",
            "-d",
            request,
            &url,
        ]));
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output))
    };

    let (created, said) = call("user", "tidings.user.v1.UserService/CreateUser", r#"{"user": {"id": "ada"}}"#);
    assert!(created, "{said}");
    let (read, said) = call("user", "tidings.user.v1.UserService/GetUser", r#"{"id": "ada"}"#);
    assert!(read && said.contains(r#""id": "ada""#), "{said}");
    let (refused, said) = call("user", "tidings.user.v1.UserService/GetUser", r#"{"id": "no spaces"}"#);
    assert!(!refused && said.contains("invalid_argument"), "{said}");
    let open = r#"{"conversation": {"id": "lobby", "kind": "KIND_OPEN"}}"#;
    let (created, said) = call("history", "tidings.history.v1.ConversationService/CreateConversation", open);
    assert!(created, "{said}");
    let (health, said) = call("history", "grpc.health.v1.Health/Check", "{}");
    assert!(health && said.contains("SERVING"), "{said}");

    let request = r#"{"name": "orders/42", "owner": "buf"}"#;
    let (granted, said) = call("lock", "tidings.lock.v1.LockService/AcquireLock", request);
    assert!(granted && said.contains("leaseId"), "{said}");
    let request = r#"{"channel": "orders/eu", "data": "aGVsbG8="}"#;
    let (published, said) = call("broadcast", "tidings.broadcast.v1.BroadcastService/Publish", request);
    assert!(published && said.contains(r#""offset": "1""#), "{said}");
    assert_streams(&up);
    assert_lists_what_is_served(&up);
}

/// A stream is read as long as one likes.
fn assert_streams(up: &Up) {
    let url = format!("http://{}/tidings.broadcast.v1.BroadcastService/Subscribe", up.address("broadcast"));
    let request = r#"{"channels": [{"channel": "orders/eu", "last": 10}]}"#;
    let mut listening = Command::new("buf")
        .args(["curl", "--protocol", "grpc", "--http2-prior-knowledge", "-d", request, &url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(listening.stdout.take().unwrap()).lines().map(Result::unwrap);
    let heard: Vec<_> = lines.take_while(|line| !line.contains("caughtUp")).collect();
    assert!(heard.iter().any(|line| line.contains(r#""data": "aGVsbG8=""#)), "{heard:?}");
    listening.kill().unwrap();
    listening.wait().unwrap();
}

/// Reflection lists what is served here, whatever else the contracts describe.
fn assert_lists_what_is_served(up: &Up) {
    let url = format!("http://{}", up.address("history"));
    let listed = finish(Command::new("buf").args([
        "curl",
        "--protocol",
        "grpc",
        "--http2-prior-knowledge",
        "--list-services",
        &url,
    ]));
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("tidings.history.v1.HistoryService"), "{listed}");
    assert!(!listed.contains("tidings.user"), "what is not served here is not listed: {listed}");
}
