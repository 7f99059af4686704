//! The main job, in the middle of which everything dies once: real lines go in, the same lines come out, none lost and none
//! twice.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Up, eventually, finish, real_logs, root, stderr};

/// Starts a replay so slow that there is time to hurt it.
fn replay(up: &Up, logs: &[PathBuf], speed: &str) -> Child {
    let mut command = up.command(&["replay", "--quiet", "--output", "json", "--speed", speed]);
    command.args(logs).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The summary of a replay that ended well.
fn summary(replay: Child) -> serde_json::Value {
    let output = replay.wait_with_output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for none in ["lost", "doubled", "differences"] {
        assert_eq!(summary[none], 0, "{none}: {summary}");
    }
    summary
}

/// How many messages of a conversation are there.
fn sent(up: &Up, conversation: &str) -> i64 {
    let request = format!(r#"{{"id": "{conversation}"}}"#);
    let output = up.command(&["call", "GetConversation", &request]).output().unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    answer["conversation"]["lastSeq"].as_str().and_then(|seq| seq.parse().ok()).unwrap_or(0)
}

#[test]
fn the_demo_conversations_come_out_as_they_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path());

    let output = finish(&mut up.command(&["replay", "demo"]));

    assert!(output.status.success(), "{}", stderr(&output));
    let again = finish(&mut up.command(&["replay", "demo"]));
    assert!(again.status.success(), "a repeat finds everything as it was: {}", stderr(&again));
}

#[test]
fn a_replay_survives_the_death_of_everything_it_stands_on() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path());
    let logs = real_logs("a_replay_survives_the_death_of_everything_it_stands_on");
    // Without real logs the bundled ones do, only slower.
    let (logs, conversation, speed) = if let Some(logs) = logs {
        (logs[2..5].to_vec(), "irc-2005-08-08_01".to_owned(), "80")
    } else {
        (vec![root().join("demo/ops-night.log")], "irc-ops-night".to_owned(), "4")
    };
    let replay = replay(&up, &logs, speed);
    let mut seen = 0;
    let mut further = |what: &str| {
        let before = seen;
        seen = eventually(&format!("messages are sent after {what}"), || {
            Some(sent(&up, &conversation)).filter(|now| *now > before + 2)
        });
    };

    further("the start");
    up.signal("history", Signal::KILL);
    further("history was killed");
    up.flush_redis();
    further("redis was flushed");
    up.signal("redis-server", Signal::KILL);
    further("redis was killed");
    up.signal("user", Signal::KILL);
    up.signal("redis-server", Signal::STOP);
    thread::sleep(Duration::from_secs(2)); // long enough to be noticed by every call
    up.signal("redis-server", Signal::CONT);
    further("redis was stopped");
    up.signal("postgres", Signal::KILL);
    further("postgres was killed");

    let summary = summary(replay);
    assert!(summary["retries"].as_i64().unwrap() > 0, "the faults were felt: {summary}");
}

#[test]
fn real_conversations_come_out_as_they_went_in() {
    let Some(logs) = real_logs("real_conversations_come_out_as_they_went_in") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path());

    let mut command = up.command(&["replay", "--quiet", "--output", "json"]);
    let replay = command.args(&logs).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();

    let summary = summary(replay);
    assert_eq!(summary["conversations"], 10, "{summary}");
    assert!(summary["users_from_the_cache"].as_i64().unwrap() > 0, "the second reading is from the cache: {summary}");
}
