//! Calls with a third-party client that uses reflection v1, `buf curl`.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use crate::support::{TidingsUp, output_of, stderr};

#[test]
fn buf_curl_reads_the_contract_by_reflection_and_calls() {
    if Command::new("buf").arg("--version").output().is_err() {
        eprintln!("buf_curl_reads_the_contract_by_reflection_and_calls: skipped, buf is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let tidings = TidingsUp::start(dir.path());
    let call = |service: &str, method: &str, request: &str| {
        let url = format!("http://{}/{method}", tidings.address(service));
        let output = output_of(Command::new("buf").args([
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

    let (created, printed) = call("user", "tidings.user.v1.UserService/CreateUser", r#"{"user": {"id": "ada"}}"#);
    assert!(created, "{printed}");
    let (read, printed) = call("user", "tidings.user.v1.UserService/GetUser", r#"{"id": "ada"}"#);
    assert!(read && printed.contains(r#""id": "ada""#), "{printed}");
    let (refused, printed) = call("user", "tidings.user.v1.UserService/GetUser", r#"{"id": "no spaces"}"#);
    assert!(!refused && printed.contains("invalid_argument"), "{printed}");
    assert!(printed.contains("google.rpc.BadRequest") && printed.contains("google.rpc.ErrorInfo"), "{printed}");
    let open = r#"{"conversation": {"id": "lobby", "kind": "KIND_OPEN"}}"#;
    let (created, printed) = call("history", "tidings.history.v1.ConversationService/CreateConversation", open);
    assert!(created, "{printed}");
    let (health, printed) = call("history", "grpc.health.v1.Health/Check", "{}");
    assert!(health && printed.contains("SERVING"), "{printed}");

    let request = r#"{"name": "orders/42", "owner": "buf"}"#;
    let (granted, printed) = call("lock", "tidings.lock.v1.LockService/AcquireLock", request);
    assert!(granted && printed.contains("leaseId"), "{printed}");
    let request = r#"{"channel": "orders/eu", "data": "aGVsbG8="}"#;
    let (published, printed) = call("broadcast", "tidings.broadcast.v1.BroadcastService/Publish", request);
    assert!(published && printed.contains(r#""offset": "1""#), "{printed}");
    assert_streams(&tidings);
    assert_reflection_lists_only_served(&tidings);
}

/// Asserts that the client receives the frames of a stream until it disconnects.
fn assert_streams(tidings: &TidingsUp) {
    let url = format!("http://{}/tidings.broadcast.v1.BroadcastService/Subscribe", tidings.address("broadcast"));
    let request = r#"{"channels": [{"channel": "orders/eu", "last": 10}]}"#;
    let mut subscriber = Command::new("buf")
        .args(["curl", "--protocol", "grpc", "--http2-prior-knowledge", "-d", request, &url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(subscriber.stdout.take().unwrap()).lines().map(Result::unwrap);
    let received: Vec<_> = lines.take_while(|line| !line.contains("caughtUp")).collect();
    assert!(received.iter().any(|line| line.contains(r#""data": "aGVsbG8=""#)), "{received:?}");
    subscriber.kill().unwrap();
    subscriber.wait().unwrap();
}

/// Asserts that reflection lists only the services of this process, not all of the contracts.
fn assert_reflection_lists_only_served(tidings: &TidingsUp) {
    let url = format!("http://{}", tidings.address("history"));
    let listed = output_of(Command::new("buf").args([
        "curl",
        "--protocol",
        "grpc",
        "--http2-prior-knowledge",
        "--list-services",
        &url,
    ]));
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("tidings.history.v1.HistoryService"), "{listed}");
    assert!(!listed.contains("tidings.user"), "the user service is not served here: {listed}");
}
