//! Clients that nobody here wrote.

use std::process::Command;

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
    let (health, said) = call("history", "grpc.health.v1.Health/Check", "{}");
    assert!(health && said.contains("SERVING"), "{said}");
}
