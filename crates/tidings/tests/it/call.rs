//! Tests of `tidings call`.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::Stdio;

use crate::fake::{Fake, FakeFaults};
use crate::{command, ended, tidings};

#[test]
fn list_prints_every_method() {
    let run = tidings(&["call", "--list"]);

    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert!(run.out.lines().any(|line| line == "tidings.user.v1.UserService/GetUser"), "{}", run.out);
    assert!(run.out.lines().any(|line| line == "tidings.history.v1.HistoryService/AppendMessage"), "{}", run.out);
}

#[test]
fn describe_prints_the_request_message() {
    let run = tidings(&["call", "--describe", "GetUser"]);

    assert_eq!(run.code, 0);
    assert!(run.out.contains("message tidings.user.v1.GetUserRequest {\n  string id = 1;"), "{}", run.out);
}

#[test]
fn an_unknown_method_is_wrong_usage_with_suggestions() {
    let run = tidings(&["call", "UserService/GetUsr"]);

    assert_eq!((run.code, run.out.as_str()), (2, ""));
    assert!(run.err.contains("did you mean") && run.err.contains("UserService/GetUser"), "{}", run.err);
}

#[test]
fn a_malformed_request_is_wrong_usage_with_its_location() {
    for (json, location) in
        [("{", "line 1 column 1"), (r#"{"nick": 1}"#, "'nick' at line 1 column 7"), ("[]", "line 1")]
    {
        let run = tidings(&["call", "GetUser", json]);

        assert_eq!(run.code, 2);
        assert!(run.err.contains(location), "{}", run.err);
    }
}

#[test]
fn a_malformed_address_is_wrong_usage() {
    assert_eq!(tidings(&["call", "GetUser", "--addr", "nowhere"]).code, 2);
    let run = ended(&command(&["call", "GetUser"]).env("TIDINGS_USER_ADDR", "nowhere").output().unwrap());
    assert_eq!(run.code, 2);
    assert!(run.err.contains("'nowhere': expected HOST:PORT"), "{}", run.err);
}

#[test]
fn a_refused_connection_is_reported_with_address_and_advice() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();

    let run = tidings(&["call", "GetUser", "--addr", &free]);

    assert_eq!(run.code, 3);
    assert_eq!(run.err, format!("tidings: {free}: connection refused; is it running? try: tidings up\n"));
}

#[test]
fn a_response_is_printed_as_json() {
    let fake = Fake::start(FakeFaults::default());
    let address = fake.address();
    let create = r#"{"user": {"id": "ada", "display_name": "Ada"}}"#;
    assert_eq!(tidings(&["call", "CreateUser", create, "--addr", &address]).code, 0);

    let run = tidings(&["call", "user.v1.UserService/GetUser", r#"{"id":"ada"}"#, "--addr", &address]);
    let by_variable = ended(
        &command(&["call", "GetUser", r#"{"id":"ada"}"#, "--output", "jsonl"])
            .env("TIDINGS_USER_ADDR", format!("http://{address}"))
            .output()
            .unwrap(),
    );

    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert!(run.out.contains("\n    \"displayName\": \"Ada\""), "{}", run.out);
    assert_eq!(by_variable.out.lines().count(), 1);
    assert!(by_variable.out.contains(r#""displayName":"Ada""#), "{}", by_variable.out);
}

#[test]
fn a_request_is_read_from_standard_input() {
    let fake = Fake::start(FakeFaults::default());
    let mut child = command(&["call", "CreateUser", "-", "--addr", &fake.address()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(br#"{"user": {"id": "bo"}}"#).unwrap();

    let run = ended(&child.wait_with_output().unwrap());

    assert_eq!(run.code, 0);
    assert!(run.out.contains(r#""id": "bo""#), "{}", run.out);
}

#[test]
fn an_error_of_a_service_is_printed_with_all_its_details() {
    let fake = Fake::start(FakeFaults { unavailable_first: 1, ..FakeFaults::default() });

    let unavailable = tidings(&["call", "GetUser", r#"{"id":"ada"}"#, "--addr", &fake.address()]);
    let absent = tidings(&["call", "GetUser", r#"{"id":"ada"}"#, "--addr", &fake.address()]);

    assert_eq!((unavailable.code, absent.code), (3, 3));
    assert!(
        unavailable.err.contains("UNAVAILABLE STORE_AWAY: ") && unavailable.err.contains("try again after 10ms"),
        "{}",
        unavailable.err
    );
    assert!(absent.err.contains("NOT_FOUND USER_NOT_FOUND: there is no user ada"), "{}", absent.err);
}

#[test]
fn a_call_to_a_hanging_service_times_out() {
    let fake = Fake::start(FakeFaults { hang_first: 1, ..FakeFaults::default() });

    let run = tidings(&["call", "GetUser", "--timeout", "200ms", "--addr", &fake.address()]);

    assert_eq!(run.code, 3);
    assert!(run.err.contains("DEADLINE_EXCEEDED: no response within 200ms"), "{}", run.err);
}
