//! `tidings lock` against an in-memory service.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::fake::{Fake, FakeFaults};
use crate::{CommandResult, command, ended, eventually, start, tidings};

/// Runs `tidings lock` against a fake.
fn lock(fake: &Fake, arguments: &[&str]) -> CommandResult {
    tidings(&[&["lock", arguments[0], "--addr", &fake.address()][..], &arguments[1..]].concat())
}

/// Returns the command line that acquires `orders/42` and runs a shell script under it.
fn under_lock<'a>(address: &'a str, ttl: &'a str, script: &'a str) -> [&'a str; 11] {
    ["lock", "acquire", "orders/42", "--addr", address, "--ttl", ttl, "--", "sh", "-c", script]
}

fn fake() -> Fake {
    Fake::start(FakeFaults::default())
}

fn json(run: &CommandResult) -> Value {
    serde_json::from_str(&run.out).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

/// Waits until a script has written a file; returns its content.
fn written(path: &Path) -> String {
    let read = || fs::read_to_string(path).unwrap_or_default();
    eventually("the script has written", || read().ends_with('\n'));
    read().trim().to_owned()
}

#[test]
fn acquire_prints_the_arguments_for_release() {
    let fake = fake();

    let run = lock(&fake, &["acquire", "orders/42", "--ttl", "1m"]);

    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let lines: Vec<_> = run.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(lines, [["token", "1"], ["lease_id", "lease-1"], ["lease", "1m"]]);
    let release = ["release", "orders/42", "--lease", "lease-1", "--token", "1"];
    assert_eq!(lock(&fake, &release).out, "released\n");
    let again = lock(&fake, &release);
    assert_eq!((again.code, again.out.as_str()), (1, ""));
    assert_eq!(again.err, "tidings: orders/42 is not held under this lease\n");
}

#[test]
fn acquire_prints_json() {
    let fake = fake();

    let run = lock(&fake, &["acquire", "orders/42", "--ttl", "1m", "--output", "jsonl"]);
    let held = lock(&fake, &["acquire", "orders/42", "--output", "json"]);
    let released = lock(&fake, &["release", "orders/42", "--lease", "lease-1", "--token", "1", "--output", "jsonl"]);

    assert_eq!(run.out.lines().count(), 1);
    assert_eq!((&json(&run)["token"], &json(&run)["leaseId"]), (&"1".into(), &"lease-1".into()));
    assert_eq!((held.code, &json(&held)["blockers"][0]["token"]), (1, &"1".into()));
    assert_eq!(json(&released)["outcome"], "OUTCOME_RELEASED");
}

/// The holder is named in the error.
#[test]
fn acquiring_a_held_lock_ends_with_1() {
    let fake = fake();
    assert_eq!(lock(&fake, &["acquire", "orders/42", "--ttl", "1m", "--owner", "billing-1"]).code, 0);

    let held = lock(&fake, &["acquire", "orders/42"]);
    let timed_out = lock(&fake, &["acquire", "orders/42", "--wait", "100ms"]);

    assert_eq!((held.code, held.out.as_str(), timed_out.code), (1, "", 1));
    assert!(held.err.contains("orders/42 is held by billing-1 (token 1) for "), "{}", held.err);
    assert!(timed_out.err.contains("timed out after 100ms at position 1 of the wait queue"), "{}", timed_out.err);
}

#[test]
fn get_shows_the_holder() {
    let fake = fake();
    assert_eq!(lock(&fake, &["get", "orders/42"]).out, "orders/42 is free\n");
    assert_eq!(lock(&fake, &["acquire", "orders/42", "--ttl", "1m"]).code, 0);

    let run = lock(&fake, &["get", "orders/42"]);
    let object = json(&lock(&fake, &["get", "orders/42", "--output", "json"]));

    assert!(run.out.starts_with("holder") && run.out.contains('@') && run.out.contains("token 1, "), "{}", run.out);
    assert_eq!((&object["name"], &object["holders"][0]["token"]), (&"orders/42".into(), &"1".into()));
}

#[test]
fn the_same_request_id_finds_the_same_hold() {
    let fake = fake();
    let acquire = ["acquire", "orders/42", "--ttl", "1m", "--request-id", "mine", "--output", "jsonl"];
    assert_eq!(json(&lock(&fake, &acquire))["token"], "1");

    let again = json(&lock(&fake, &acquire));

    assert_eq!((&again["token"], &again["deduplicated"]), (&"1".into(), &true.into()));
    assert_eq!(lock(&fake, &["acquire", "orders/42"]).code, 1);
}

/// The command gets the token in its environment, and its exit code is returned.
#[test]
fn a_command_runs_under_the_lock() {
    let fake = fake();
    let address = fake.address();

    let run = tidings(&under_lock(&address, "1m", "echo $TIDINGS_LOCK_TOKEN; exit 7"));

    assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (7, "1\n", ""));
    assert_eq!(lock(&fake, &["get", "orders/42"]).out, "orders/42 is free\n");
}

#[test]
fn the_next_owner_waits_for_the_end_of_the_command() {
    let fake = fake();
    let address = fake.address();
    let dir = tempfile::tempdir().unwrap();
    let end = dir.path().join("end");
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done", end.display());
    let first = start(&under_lock(&address, "1m", &script));
    eventually("the lock is held", || fake.store().hold("orders/42").is_some());

    let next = start(&["lock", "acquire", "orders/42", "--addr", &address, "--wait", "60s", "--output", "jsonl"]);
    fs::write(end, "").unwrap();

    assert_eq!(first.end().code, 0);
    assert_eq!(json(&next.end())["token"], "2");
}

#[test]
fn the_lock_is_renewed_while_the_command_runs() {
    let fake = fake();
    let address = fake.address();
    let dir = tempfile::tempdir().unwrap();
    let end = dir.path().join("end");
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done", end.display());
    let holder = start(&under_lock(&address, "3s", &script));

    eventually("the lease is renewed past its first end", || fake.store().renewals >= 4);
    assert_eq!(fake.store().hold("orders/42").unwrap().token, 1);
    fs::write(end, "").unwrap();

    let run = holder.end();
    assert_eq!((run.code, run.err.as_str()), (0, ""));
}

/// The error says why the lock was lost.
#[test]
fn the_command_is_ended_when_the_lock_is_lost() {
    let fake = fake();
    let address = fake.address();
    let dir = tempfile::tempdir().unwrap();
    let (begun, ended) = (dir.path().join("begun"), dir.path().join("ended"));
    let script = format!(
        "trap 'echo yes > {}; exit' TERM; echo yes > {}; while :; do sleep 0.05; done",
        ended.display(),
        begun.display()
    );
    let holder = start(&under_lock(&address, "3s", &script));
    written(&begun);

    fake.store().holds.clear();

    let run = holder.end();
    assert_eq!(run.code, 3);
    let why = "tidings: lost the lock orders/42, and ended sh: the service reported that the lease has ended\n";
    assert!(run.err.ends_with(why), "{}", run.err);
    assert_eq!(written(&ended), "yes", "the command handles SIGTERM");
}

/// It is ended when the lease expires.
#[test]
fn the_command_is_ended_when_the_service_is_unavailable() {
    let mut fake = fake();
    let address = fake.address();
    let holder = start(&under_lock(&address, "3s", "exec sleep 600"));
    eventually("the lease is renewed", || fake.store().renewals >= 1);

    fake.kill();

    let run = holder.end();
    assert_eq!(run.code, 3);
    assert!(run.err.contains("ended sh: the lease was not renewed in time: UNAVAILABLE"), "{}", run.err);
}

/// The processes that the command started are killed too.
#[test]
fn a_command_that_ignores_sigterm_is_killed_after_five_seconds() {
    let fake = fake();
    let address = fake.address();
    let dir = tempfile::tempdir().unwrap();
    let begun = dir.path().join("begun");
    let script = format!("trap '' TERM; sleep 120 & echo yes > {}; wait", begun.display());
    let holder = start(&under_lock(&address, "3s", &script));
    written(&begun);
    let lost = Instant::now();

    fake.store().holds.clear();

    // `end` returns when all processes with the output open have ended, the sleep included.
    assert_eq!(holder.end().code, 3);
    assert!((5..120).contains(&lost.elapsed().as_secs()), "{:?}", lost.elapsed());
}

/// The lock is released when the command ends.
#[test]
fn signals_are_forwarded_to_the_command() {
    let fake = fake();
    let address = fake.address();
    for (signal, code) in [(Signal::TERM, 128 + 15), (Signal::INT, 128 + 2), (Signal::HUP, 128 + 1)] {
        let dir = tempfile::tempdir().unwrap();
        let begun = dir.path().join("begun");
        let script = format!("echo yes > {}; exec sleep 600", begun.display());
        let holder = start(&under_lock(&address, "1m", &script));
        written(&begun);

        holder.signal(signal);

        assert_eq!(holder.end().code, code);
        assert!(fake.store().hold("orders/42").is_none());
    }
}

/// The lock is released again.
#[test]
fn a_command_that_does_not_exist_is_wrong_usage() {
    let fake = fake();

    let run = lock(&fake, &["acquire", "orders/42", "--ttl", "1m", "--", "no-such-command"]);

    assert_eq!(run.code, 2);
    assert!(run.err.starts_with("tidings: cannot run no-such-command: "), "{}", run.err);
    assert!(fake.store().hold("orders/42").is_none());
}

#[test]
fn a_service_that_does_not_run_is_reported_with_advice() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();

    let run = tidings(&["lock", "get", "orders/42", "--addr", &free]);

    assert_eq!(run.code, 3);
    let expected =
        format!("tidings: GetLock: {free}: connection refused; is it running? try: tidings up\n  gave up after ");
    assert!(run.err.starts_with(&expected), "{}", run.err);
}

#[test]
fn one_address_that_responds_is_enough() {
    let fake = fake();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let addresses = format!("{free},http://{},{free}", fake.address());

    for _ in 0..4 {
        let run = command(&["lock", "get", "orders/42"]).env("TIDINGS_LOCK_ADDR", &addresses).output().unwrap();
        assert_eq!(ended(&run).code, 0);
    }
}
