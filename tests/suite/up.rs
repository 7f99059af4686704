//! `tidings up` runs all servers and services, restarts them when they die, and leaves no process
//! behind.

use std::net::TcpListener;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::support::{TIDINGS, TidingsUp, children, eventually, output_of, port_offset, stderr};

const ADA: &str = r#"{"user": {"id": "ada", "display_name": "Ada Lovelace"}}"#;

#[test]
fn data_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let tidings = TidingsUp::start(dir.path());
    tidings.call("CreateUser", ADA);
    drop(tidings);

    let tidings = TidingsUp::start(dir.path());
    let response = tidings.call("GetUser", r#"{"id": "ada"}"#);

    assert_eq!(response["user"]["displayName"], "Ada Lovelace");
}

#[test]
fn every_process_that_dies_is_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let tidings = TidingsUp::start(dir.path());
    tidings.call("CreateUser", ADA);

    for what in ["user", "history", "lock", "broadcast", "redis-server", "postgres"] {
        let before = tidings.pid(what);
        assert!(before.is_some(), "{what} runs");
        tidings.signal(what, Signal::KILL);
        eventually(&format!("{what} is restarted"), || tidings.pid(what).filter(|pid| Some(*pid) != before));
    }

    eventually("ada is read again", || {
        let output =
            tidings.command(&["call", "GetUser", r#"{"id": "ada", "consistency": "CONSISTENCY_STRONG"}"#]).output();
        output.unwrap().status.success().then_some(())
    });
}

#[test]
fn all_its_processes_end_when_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut tidings = TidingsUp::start(dir.path());
    let children_before = children(tidings.process().id());
    assert!(children_before.len() >= 6, "four services, postgres and redis run");

    tidings.process().kill().unwrap();

    for pid in children_before {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        eventually(&format!("process {pid:?} ends"), || test_kill_process(pid).is_err().then_some(()));
    }
}

#[test]
fn sigint_stops_it_with_success() {
    let dir = tempfile::tempdir().unwrap();
    let mut tidings = TidingsUp::start(dir.path());

    kill_process(Pid::from_raw(i32::try_from(tidings.process().id()).unwrap()).unwrap(), Signal::INT).unwrap();

    let status = eventually("`tidings up` exits", || tidings.process().try_wait().unwrap());
    assert!(status.success(), "{status}");
}

#[test]
fn a_taken_port_is_reported_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let offset = port_offset();
    let _taken = TcpListener::bind(("127.0.0.1", 7402 + offset)).unwrap();

    let output =
        output_of(Command::new(TIDINGS).args(["up", "--port-offset", &offset.to_string(), "--dir"]).arg(dir.path()));

    assert!(!output.status.success());
    let message = stderr(&output);
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains(&format!("port {} (history) is not available", 7402 + offset)), "{message}");
}

#[test]
fn a_directory_in_use_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let _up = TidingsUp::start(dir.path());

    let offset = port_offset().to_string();
    let output = output_of(Command::new(TIDINGS).args(["up", "--port-offset", &offset, "--dir"]).arg(dir.path()));

    assert!(!output.status.success());
    assert!(stderr(&output).contains("is in use by another tidings (pid "), "{}", stderr(&output));
}

#[test]
fn fresh_deletes_existing_data() {
    let dir = tempfile::tempdir().unwrap();
    let offset = port_offset().to_string();
    let run_up = |flags: &[&str], call: &[&str]| {
        let mut command = Command::new(TIDINGS);
        command.args(["up", "--port-offset", &offset, "--dir"]).arg(dir.path()).args(flags);
        output_of(command.arg("--").arg(TIDINGS).arg("call").args(call))
    };
    assert!(run_up(&[], &["CreateUser", ADA]).status.success());
    assert!(run_up(&[], &["GetUser", r#"{"id": "ada"}"#]).status.success());

    let output = run_up(&["--fresh"], &["GetUser", r#"{"id": "ada"}"#]);

    assert_eq!(output.status.code(), Some(3), "the exit code of the inner command: {}", stderr(&output));
    assert!(stderr(&output).contains("USER_NOT_FOUND"), "{}", stderr(&output));
}
