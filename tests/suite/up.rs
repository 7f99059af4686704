//! `tidings up`: one command, everything runs; whatever dies is started again; when it ends, nothing is left.

use std::net::TcpListener;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::support::{TIDINGS, Up, children, eventually, finish, port_offset, stderr};

const ADA: &str = r#"{"user": {"id": "ada", "display_name": "Ada Lovelace"}}"#;

#[test]
fn what_was_written_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path());
    up.call("CreateUser", ADA);
    drop(up);

    let up = Up::start(dir.path());
    let answer = up.call("GetUser", r#"{"id": "ada"}"#);

    assert_eq!(answer["user"]["displayName"], "Ada Lovelace");
}

#[test]
fn whatever_dies_is_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path());
    up.call("CreateUser", ADA);

    for what in ["user", "history", "lock", "broadcast", "redis-server", "postgres"] {
        let before = up.pid(what);
        assert!(before.is_some(), "{what} runs");
        up.signal(what, Signal::KILL);
        eventually(&format!("another {what}"), || up.pid(what).filter(|pid| Some(*pid) != before));
    }

    eventually("ada is read again", || {
        let output = up.command(&["call", "GetUser", r#"{"id": "ada", "consistency": "CONSISTENCY_STRONG"}"#]).output();
        output.unwrap().status.success().then_some(())
    });
}

#[test]
fn when_it_is_killed_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut up = Up::start(dir.path());
    let left = children(up.process().id());
    assert!(left.len() >= 6, "four services, postgres and redis run");

    up.process().kill().unwrap();

    for pid in left {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        eventually(&format!("process {pid:?} ends"), || test_kill_process(pid).is_err().then_some(()));
    }
}

#[test]
fn a_signal_ends_it_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut up = Up::start(dir.path());

    kill_process(Pid::from_raw(i32::try_from(up.process().id()).unwrap()).unwrap(), Signal::INT).unwrap();

    let status = eventually("it ends", || up.process().try_wait().unwrap());
    assert!(status.success(), "{status}");
}

#[test]
fn a_taken_port_is_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let offset = port_offset();
    let _taken = TcpListener::bind(("127.0.0.1", 7402 + offset)).unwrap();

    let output =
        finish(Command::new(TIDINGS).args(["up", "--port-offset", &offset.to_string(), "--dir"]).arg(dir.path()));

    assert!(!output.status.success());
    let said = stderr(&output);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(&format!("port {} (history) is taken", 7402 + offset)), "{said}");
}

#[test]
fn a_directory_in_use_is_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let _up = Up::start(dir.path());

    let offset = port_offset().to_string();
    let output = finish(Command::new(TIDINGS).args(["up", "--port-offset", &offset, "--dir"]).arg(dir.path()));

    assert!(!output.status.success());
    assert!(stderr(&output).contains("is in use by another tidings (pid "), "{}", stderr(&output));
}

#[test]
fn fresh_forgets_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let offset = port_offset().to_string();
    let up = |flags: &[&str], call: &[&str]| {
        let mut command = Command::new(TIDINGS);
        command.args(["up", "--port-offset", &offset, "--dir"]).arg(dir.path()).args(flags);
        finish(command.arg("--").arg(TIDINGS).arg("call").args(call))
    };
    assert!(up(&[], &["CreateUser", ADA]).status.success());
    assert!(up(&[], &["GetUser", r#"{"id": "ada"}"#]).status.success());

    let output = up(&["--fresh"], &["GetUser", r#"{"id": "ada"}"#]);

    assert_eq!(output.status.code(), Some(3), "as the command ended: {}", stderr(&output));
    assert!(stderr(&output).contains("USER_NOT_FOUND"), "{}", stderr(&output));
}
