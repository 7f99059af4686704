//! `tidings lock`.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::fake::{Fake, Faults};
use crate::{Run, command, ended, eventually, start, tidings};

/// Runs `tidings lock` against a fake.
fn lock(fake: &Fake, arguments: &[&str]) -> Run {
    tidings(&[&["lock", arguments[0], "--addr", &fake.address()][..], &arguments[1..]].concat())
}

/// A command line that takes `orders/42` and runs a shell script under it.
fn under_lock<'a>(address: &'a str, ttl: &'a str, script: &'a str) -> [&'a str; 11] {
    ["lock", "acquire", "orders/42", "--addr", address, "--ttl", ttl, "--", "sh", "-c", script]
}

fn fake() -> Fake {
    Fake::start(Faults::default())
}

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.out).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

/// Waits until a script has written a file, and says what it wrote.
fn written(path: &Path) -> String {
    let read = || fs::read_to_string(path).unwrap_or_default();
    eventually("the script has written", || read().ends_with('\n'));
    read().trim().to_owned()
}

#[test]
fn acquire_prints_what_is_needed_to_release() {
    let fake = fake();

    let run = lock(&fake, &["acquire", "orders/42", "--ttl", "1m"]);

    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let lines: Vec<_> = run.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(lines, [["token", "1"], ["lease_id", "lease-1"], ["lease", "1m"]]);
    let release = ["release", "orders/42", "--lease", "lease-1", "--token", "1"];
    assert_eq!(lock(&fake, &release).out, "released\n");
    let again = lock(&fake, &release);
    assert_eq!((again.code, again.out.as_str()), (1, ""));
    assert_eq!(again.err, "tidings: orders/42 was not held under this lease\n");
}

#[test]
fn acquire_prints_json_for_programs() {
    let fake = fake();

    let run = lock(&fake, &["acquire", "orders/42", "--ttl", "1m", "--output", "jsonl"]);
    let held = lock(&fake, &["acquire", "orders/42", "--output", "json"]);
    let released = lock(&fake, &["release", "orders/42", "--lease", "lease-1", "--token", "1", "--output", "jsonl"]);

    assert_eq!(run.out.lines().count(), 1);
    assert_eq!((&json(&run)["token"], &json(&run)["leaseId"]), (&"1".into(), &"lease-1".into()));
    assert_eq!((held.code, &json(&held)["blockers"][0]["token"]), (1, &"1".into()));
    assert_eq!(json(&released)["outcome"], "OUTCOME_RELEASED");
}

#[test]
fn a_lock_that_somebody_holds_is_no_and_the_holder_is_named() {
    let fake = fake();
    assert_eq!(lock(&fake, &["acquire", "orders/42", "--ttl", "1m", "--owner", "billing-1"]).code, 0);

    let held = lock(&fake, &["acquire", "orders/42"]);
    let late = lock(&fake, &["acquire", "orders/42", "--wait", "100ms"]);

    assert_eq!((held.code, held.out.as_str(), late.code), (1, "", 1));
    assert!(held.err.contains("orders/42 is held by billing-1 (token 1) for "), "{}", held.err);
    assert!(late.err.contains("it was waited for 100ms as number 1 in the queue"), "{}", late.err);
}

#[test]
fn get_says_who_holds_it() {
    let fake = fake();
    assert_eq!(lock(&fake, &["get", "orders/42"]).out, "orders/42 is free\n");
    assert_eq!(lock(&fake, &["acquire", "orders/42", "--ttl", "1m"]).code, 0);

    let run = lock(&fake, &["get", "orders/42"]);
    let object = json(&lock(&fake, &["get", "orders/42", "--output", "json"]));

    assert!(run.out.starts_with("holds") && run.out.contains('@') && run.out.contains("token 1, "), "{}", run.out);
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

#[test]
fn a_command_runs_under_the_lock_with_its_token_and_its_exit_code_is_ours() {
    let fake = fake();
    let address = fake.address();

    let run = tidings(&under_lock(&address, "1m", "echo $TIDINGS_LOCK_TOKEN; exit 7"));

    assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (7, "1\n", ""));
    assert_eq!(lock(&fake, &["get", "orders/42"]).out, "orders/42 is free\n");
}

#[test]
fn the_next_one_waits_for_the_end_of_the_command() {
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

    eventually("it was renewed past its lease", || fake.store().renewals >= 4);
    assert_eq!(fake.store().hold("orders/42").unwrap().token, 1);
    fs::write(end, "").unwrap();

    let run = holder.end();
    assert_eq!((run.code, run.err.as_str()), (0, ""));
}

#[test]
fn when_the_lock_is_lost_the_command_is_ended_and_why_is_said() {
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
    let why = "tidings: orders/42 was lost, and sh was ended: the service says that the lease is over\n";
    assert!(run.err.ends_with(why), "{}", run.err);
    assert_eq!(written(&ended), "yes", "it could end in order");
}

#[test]
fn when_the_service_is_away_for_too_long_the_command_is_ended_at_the_deadline() {
    let mut fake = fake();
    let address = fake.address();
    let holder = start(&under_lock(&address, "3s", "exec sleep 600"));
    eventually("it was renewed", || fake.store().renewals >= 1);

    fake.kill();

    let run = holder.end();
    assert_eq!(run.code, 3);
    assert!(run.err.contains("sh was ended: the lease was not renewed in time: UNAVAILABLE"), "{}", run.err);
}

#[test]
fn what_does_not_end_in_order_is_killed_after_five_seconds_with_all_that_it_started() {
    let fake = fake();
    let address = fake.address();
    let dir = tempfile::tempdir().unwrap();
    let begun = dir.path().join("begun");
    let script = format!("trap '' TERM; sleep 120 & echo yes > {}; wait", begun.display());
    let holder = start(&under_lock(&address, "3s", &script));
    written(&begun);
    let lost = Instant::now();

    fake.store().holds.clear();

    // It ends when nobody has its output open any more: not the sleep, either.
    assert_eq!(holder.end().code, 3);
    assert!((5..120).contains(&lost.elapsed().as_secs()), "{:?}", lost.elapsed());
}

#[test]
fn signals_are_passed_on_and_the_lock_is_released_at_the_end() {
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

#[test]
fn a_command_that_does_not_exist_is_wrong_usage_and_the_lock_is_free_again() {
    let fake = fake();

    let run = lock(&fake, &["acquire", "orders/42", "--ttl", "1m", "--", "no-such-command"]);

    assert_eq!(run.code, 2);
    assert!(run.err.starts_with("tidings: can not run no-such-command: "), "{}", run.err);
    assert!(fake.store().hold("orders/42").is_none());
}

#[test]
fn nobody_at_home_is_told_with_the_address_and_what_to_do() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();

    let run = tidings(&["lock", "get", "orders/42", "--addr", &free]);

    assert_eq!(run.code, 3);
    let expected =
        format!("tidings: GetLock: {free}: connection refused; is it running? try: tidings up\n  gave up after ");
    assert!(run.err.starts_with(&expected), "{}", run.err);
}

#[test]
fn of_several_addresses_one_that_answers_is_enough() {
    let fake = fake();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let addresses = format!("{free},http://{},{free}", fake.address());

    for _ in 0..4 {
        let run = command(&["lock", "get", "orders/42"]).env("TIDINGS_LOCK_ADDR", &addresses).output().unwrap();
        assert_eq!(ended(&run).code, 0);
    }
}
