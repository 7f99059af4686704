//! Tests of `tidings replay`: every difference is found, and services may fail and restart
//! meanwhile.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::fake::{Damage, Fake, FakeFaults, Push};
use crate::{CommandResult, command, ended, tidings};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo");

/// The flags with the addresses of the services.
const ADDRESSES: [&str; 4] = ["--user-addr", "--history-addr", "--lock-addr", "--broadcast-addr"];

/// Replays `files` against `fake`, with a summary as JSON.
fn replay(fake: &Fake, files: &[&Path], more: &[&str]) -> CommandResult {
    let mut arguments: Vec<_> = ["replay", "--output", "jsonl", "--quiet"].map(str::to_owned).into();
    arguments.extend(files.iter().map(|file| file.to_str().unwrap().to_owned()));
    arguments.extend(ADDRESSES.into_iter().flat_map(|flag| [flag.to_owned(), fake.address()]));
    arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
    tidings(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn demo(fake: &Fake, more: &[&str]) -> CommandResult {
    replay(fake, &[Path::new(DEMO)], more)
}

/// Returns the count of this name in a summary.
#[track_caller]
fn count(run: &CommandResult, name: &str) -> u64 {
    let summary: Value = serde_json::from_str(&run.out).unwrap_or_else(|error| panic!("{error}: {run:?}"));
    summary[name].as_u64().unwrap_or_else(|| panic!("{name} in {summary}"))
}

/// Writes three logs of ten messages. The fake damages the second one on request.
fn three_logs() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        let lines = (0..10).map(|line| format!("[10:0{line}] <nick{}> {name}{line}\n", line % 3));
        let log: Vec<_> = ["=== in\n".to_owned()].into_iter().chain(lines).collect();
        fs::write(dir.path().join(format!("{name}.log")), log.concat()).unwrap();
    }
    dir
}

#[test]
fn the_demo_is_read_back_equal() {
    let fake = Fake::start(FakeFaults::default());

    let run = demo(&fake, &["--page-size", "7"]);

    assert_eq!(run.code, 0, "{run:?}");
    let sent = count(&run, "messages_sent");
    assert!(sent > 70, "{run:?}");
    assert_eq!((count(&run, "conversations"), count(&run, "messages_read_back")), (2, 3 * sent));
    for odd in ["system_lines_skipped", "malformed_lines", "bytes_replaced", "replies_linked"] {
        assert!(count(&run, odd) > 0, "{odd}: {run:?}");
    }
    for odd in ["replies_to_further_lines", "replies_from_or_to_unsent_lines", "pages_from_redis"] {
        assert!(count(&run, odd) > 0, "{odd}: {run:?}");
    }
    for bad in ["lost", "duplicated", "differences", "retries", "messages_deduplicated"] {
        assert_eq!(count(&run, bad), 0, "{bad}: {run:?}");
    }
    assert_eq!(count(&run, "users_from_the_cache"), count(&run, "users"));
    assert!(run.err.contains(" skipped: "), "{run:?}");
}

/// A second replay is deduplicated. One with another prefix creates new conversations.
#[test]
fn a_second_replay_is_deduplicated_unless_its_prefix_differs() {
    let fake = Fake::start(FakeFaults::default());
    demo(&fake, &[]);

    let again = demo(&fake, &[]);
    let other = demo(&fake, &["--prefix", "again-"]);

    assert_eq!((again.code, other.code), (0, 0), "{again:?} {other:?}");
    assert_eq!(count(&again, "messages_deduplicated"), count(&again, "messages_sent"));
    assert_eq!((count(&other, "messages_deduplicated"), count(&other, "lost")), (0, 0));
    assert_eq!(fake.store().conversations.len(), 4);
}

/// A user of another replay is accepted if its name differs only in case, and no other user is.
#[test]
fn an_existing_user_is_accepted_if_only_case_differs() {
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::start(FakeFaults::default()));
    let (one, other) = (dir.path().join("one.log"), dir.path().join("other.log"));
    fs::write(&one, "[00:00] <ADA> a\n").unwrap();
    fs::write(&other, "[00:00] <Ada> b\n").unwrap();
    assert_eq!(replay(&fake, &[&one], &[]).code, 0);
    assert_eq!(replay(&fake, &[&other], &[]).code, 0);

    fake.store().users.get_mut("irc-ada").unwrap().display_name = "Bo".into();
    let run = replay(&fake, &[&other], &[]);

    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.err.contains("user irc-ada: display_name"), "{run:?}");
}

#[test]
fn every_damaged_read_is_found_with_its_line() {
    let cases = [
        (Damage::Lose(4), "line 4, seq 4: message, read forwards", 1, 0),
        (Damage::Lose(10), "conversation irc-b", 1, 0),
        (Damage::Double(4), "conversation irc-b", 0, 1),
        (Damage::Swap(4), "line 4, seq 4: message, read forwards", 0, 0),
        (Damage::Alter(4), "line 4, seq 4: text, read forwards", 0, 0),
        (Damage::LoseOfAuthor(4), "line 4, seq 4: message, read by author", 0, 0),
    ];
    let logs = three_logs();
    for (damage, location, lost, duplicated) in cases {
        let fake = Fake::start(FakeFaults { damage: Some(damage), ..FakeFaults::default() });

        let run = replay(&fake, &[logs.path()], &["--page-size", "3"]);

        assert_eq!(run.code, 1, "{damage:?}: {run:?}");
        assert!(run.err.contains("b.log)") && run.err.contains(location), "{damage:?}: {run:?}");
        assert_eq!((count(&run, "lost"), count(&run, "duplicated")), (lost, duplicated), "{damage:?}: {run:?}");
        assert!(count(&run, "differences") > 0);
    }
}

#[test]
fn every_reader_receives_every_message_once() {
    let fake = Fake::start(FakeFaults::default());

    let run = demo(&fake, &["--readers", "4"]);

    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(count(&run, "messages_pushed_to_readers"), 4 * count(&run, "messages_sent"));
    for none in ["messages_pushed_again", "gaps_and_resets_received", "messages_filled_from_history"] {
        assert_eq!(count(&run, none), 0, "{none}: {run:?}");
    }
    let again = demo(&fake, &[]);
    assert_eq!((again.code, count(&again, "messages_pushed_to_readers")), (0, 0), "no message was new: {again:?}");
}

#[test]
fn every_damaged_push_is_found_with_its_line() {
    let cases = [
        (Push::Lose(4), "conversation irc-b", "messages from 4 on were not pushed, without a gap or reset"),
        (Push::Lose(10), "line 10, seq 10", "no further message"),
        (Push::Delay(4), "conversation irc-b", "messages from 4 on were not pushed, without a gap or reset"),
        (Push::Alter(4), "line 4, seq 4: text, as received by a reader", "something else"),
    ];
    let logs = three_logs();
    for (push, location, what) in cases {
        let fake = Fake::start(FakeFaults { push: Some(push), ..FakeFaults::default() });

        let run = replay(&fake, &[logs.path()], &["--readers", "1", "--patience", "2s"]);

        assert_eq!(run.code, 1, "{push:?}: {run:?}");
        assert!(run.err.contains(location) && run.err.contains(what), "{push:?}: {run:?}");
        assert_eq!(count(&run, "lost"), 0, "history holds every message: {run:?}");
    }
}

/// A message pushed twice is counted and ignored. After a reset, lost messages are filled from
/// history.
#[test]
fn duplicate_pushes_and_resets_are_no_differences() {
    let logs = three_logs();
    for (push, counted) in [(Push::Double(4), "messages_pushed_again"), (Push::Reset(4), "gaps_and_resets_received")] {
        let fake = Fake::start(FakeFaults { push: Some(push), ..FakeFaults::default() });

        let run = replay(&fake, &[logs.path()], &["--readers", "1"]);

        assert_eq!((run.code, count(&run, counted)), (0, 1), "{push:?}: {run:?}");
        let received = count(&run, "messages_pushed_to_readers") + count(&run, "messages_filled_from_history");
        assert_eq!(received, count(&run, "messages_sent"), "{push:?}: {run:?}");
    }
}

#[test]
fn a_lost_lock_is_reacquired_before_sending_continues() {
    let (logs, fake) = (three_logs(), Fake::start(FakeFaults::default()));
    let child = command(&["replay", logs.path().to_str().unwrap(), "--speed", "2", "--output", "jsonl"])
        .args(ADDRESSES.into_iter().flat_map(|flag| [flag.to_owned(), fake.address()]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while fake.store().appends < 6 {
        thread::sleep(Duration::from_millis(10));
    }
    fake.store().holds.clear(); // as when Redis is flushed

    let run = ended(&child.wait_with_output().unwrap());

    assert_eq!((run.code, count(&run, "locks_lost_and_reacquired")), (0, 3), "{run:?}");
    assert_eq!((count(&run, "messages_sent"), count(&run, "lost"), count(&run, "duplicated")), (30, 0, 0));
}

/// A replay waits for a conversation that another owner has locked, and gives up after its
/// patience.
#[test]
fn a_conversation_locked_by_another_owner_is_an_error() {
    let (logs, fake) = (three_logs(), Fake::start(FakeFaults::default()));
    let lock =
        tidings(&["lock", "acquire", "replay/irc-b", "--owner", "other", "--ttl", "60s", "--addr", &fake.address()]);
    assert_eq!(lock.code, 0, "{lock:?}");

    let run = replay(&fake, &[logs.path()], &["--patience", "500ms"]);

    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.err.contains("lock replay/irc-b not acquired within 500ms: held by other"), "{run:?}");
}

#[test]
fn a_log_changed_since_its_last_replay_is_a_difference() {
    let (logs, fake) = (three_logs(), Fake::start(FakeFaults::default()));
    let file = logs.path().join("a.log");
    assert_eq!(replay(&fake, &[&file], &[]).code, 0);
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("a7", "x7")).unwrap();

    let run = replay(&fake, &[&file], &[]);

    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.err.contains("line 8, seq 8") && run.err.contains("CLIENT_MESSAGE_ID_REUSED"), "{run:?}");
    assert_eq!((count(&run, "differences"), count(&run, "lost"), count(&run, "duplicated")), (1, 0, 0), "{run:?}");
}

#[test]
fn failed_calls_are_retried_and_counted() {
    let fake = Fake::start(FakeFaults { unavailable_first: 12, ..FakeFaults::default() });

    let run = demo(&fake, &["--readers", "0"]);

    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(count(&run, "retries"), 12);
}

#[test]
fn responses_lost_after_the_commit_cause_no_duplicates() {
    let fake = Fake::start(FakeFaults { drop_response_every: 5, ..FakeFaults::default() });

    let run = demo(&fake, &[]);

    assert_eq!(run.code, 0, "{run:?}");
    assert!(count(&run, "retries") > 10, "{run:?}");
    assert!(count(&run, "messages_deduplicated") > 10, "{run:?}");
    assert_eq!((count(&run, "lost"), count(&run, "duplicated")), (0, 0));
}

#[test]
fn a_hanging_call_is_retried_after_its_timeout() {
    let fake = Fake::start(FakeFaults { hang_first: 2, ..FakeFaults::default() });

    let run = demo(&fake, &["--timeout", "200ms", "--readers", "0"]);

    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(count(&run, "retries"), 2);
}

#[test]
fn a_replay_waits_for_restarting_services() {
    let (logs, mut fake) = (three_logs(), Fake::start(FakeFaults::default()));
    let address = fake.address();
    let child = command(&["replay", logs.path().to_str().unwrap(), "--speed", "10", "--output", "jsonl"])
        .args(ADDRESSES.into_iter().flat_map(|flag| [flag, &address]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while fake.store().appends < 9 {
        thread::sleep(Duration::from_millis(10));
    }
    fake.kill();
    thread::sleep(Duration::from_millis(1500)); // connections are refused meanwhile
    fake.restart();

    let run = ended(&child.wait_with_output().unwrap());

    assert_eq!(run.code, 0, "{run:?}");
    assert!(count(&run, "retries") > 0, "{run:?}");
    assert_eq!((count(&run, "messages_sent"), count(&run, "lost"), count(&run, "duplicated")), (30, 0, 0));
}

#[test]
fn an_unreachable_service_is_reported_with_its_address() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();

    let run = tidings(&["replay", DEMO, "--quiet", "--user-addr", &free, "--patience", "300ms"]);

    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.err.contains(&format!("{free}: connection refused; is it running?")), "{run:?}");
}

#[test]
fn missing_and_ambiguous_files_are_wrong_usage() {
    let logs = three_logs();
    let file = logs.path().join("a.log");

    let missing = tidings(&["replay", "no/such.log"]);
    let twice = tidings(&["replay", file.to_str().unwrap(), logs.path().to_str().unwrap()]);
    let prefix = tidings(&["replay", DEMO, "--prefix", "a b"]);

    assert_eq!((missing.code, twice.code, prefix.code), (2, 2, 2));
    assert!(missing.err.contains("no/such.log: "), "{missing:?}");
    assert!(twice.err.contains("a.log") && twice.err.contains("irc-a"), "{twice:?}");
}

#[test]
fn a_log_without_messages_succeeds() {
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::start(FakeFaults::default()));
    let file = dir.path().join("quiet.log");
    fs::write(&file, "=== no messages here\n").unwrap();

    let run = replay(&fake, &[&file], &[]);

    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!((count(&run, "conversations"), count(&run, "messages_sent")), (1, 0));
}

/// Replays real logs from `TIDINGS_IRC_DIR`, or from beside the workspace. Skipped if there are
/// none.
#[test]
fn real_conversations_are_read_back_equal() {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/irc");
    let logs = PathBuf::from(std::env::var("TIDINGS_IRC_DIR").unwrap_or_else(|_| beside.to_owned()));
    if !logs.is_dir() {
        let skipped = format!("skipped: no real logs in {}\n", logs.display());
        std::io::Write::write_all(&mut std::io::stderr(), skipped.as_bytes()).unwrap();
        return;
    }
    let fake = Fake::start(FakeFaults { drop_response_every: 100, ..FakeFaults::default() });

    let run = replay(&fake, &[&logs], &[]);

    assert_eq!(run.code, 0, "{run:?}");
    let sent = count(&run, "messages_sent");
    assert_eq!(sent + count(&run, "system_lines_skipped") + count(&run, "malformed_lines"), count(&run, "lines"));
    assert_eq!((count(&run, "malformed_lines"), count(&run, "bytes_replaced")), (0, 0), "{run:?}");
    assert!(sent > 500 && count(&run, "messages_deduplicated") > 0, "{run:?}");
}
