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

/// How often something was counted.
fn count(summary: &serde_json::Value, name: &str) -> i64 {
    summary[name].as_i64().unwrap_or_else(|| panic!("{name}: {summary}"))
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

/// Real logs for a replay with time to hurt it, a conversation of it, and its speed. Without real logs the bundled ones do,
/// only slower.
fn slow_logs(test: &str) -> (Vec<PathBuf>, &'static str, &'static str) {
    match real_logs(test) {
        Some(logs) => (logs[2..5].to_vec(), "irc-2005-08-08_01", "40"),
        None => (vec![root().join("demo/ops-night.log")], "irc-ops-night", "1"),
    }
}

#[test]
fn a_replay_survives_the_death_of_everything_it_stands_on() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path());
    let (logs, conversation, speed) = slow_logs("a_replay_survives_the_death_of_everything_it_stands_on");
    let replay = replay(&up, &logs, speed);
    let mut seen = 0;
    let mut further = |what: &str| {
        let before = seen;
        seen = eventually(&format!("messages are sent after {what}"), || {
            Some(sent(&up, conversation)).filter(|now| *now > before + 2)
        });
    };

    further("the start");
    for service in ["history", "broadcast", "lock"] {
        up.signal(service, Signal::KILL);
        further(&format!("{service} was killed"));
    }
    up.flush_redis(); // and with it all locks and channels: nobody sends until the lost lock can not be believed in any more
    further("redis was flushed");
    up.signal("user", Signal::KILL);
    up.signal("redis-server", Signal::STOP);
    thread::sleep(Duration::from_secs(2)); // long enough to be noticed by every call
    up.signal("redis-server", Signal::CONT);
    further("redis was stopped");
    up.signal("redis-server", Signal::KILL);
    further("redis was killed");
    up.signal("postgres", Signal::KILL);
    further("postgres was killed");

    let summary = summary(replay);
    for felt in ["retries", "locks_lost_and_taken_again", "gaps_and_resets_told_to_readers"] {
        assert!(count(&summary, felt) > 0, "{felt}: {summary}");
    }
    let (readers, messages) = (count(&summary, "readers_of_each_conversation"), count(&summary, "messages_sent"));
    let received = count(&summary, "messages_pushed_to_readers") + count(&summary, "messages_filled_from_history");
    assert_eq!(received, readers * messages, "{summary}");
}

#[test]
fn two_instances_of_each_service_do_the_job_together_and_one_of_each_does_it_alone() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path());
    let mut others: Vec<_> =
        ["user", "history", "lock", "broadcast"].map(|service| (service, up.another(service))).into();
    let (logs, conversation, speed) = slow_logs("two_instances_of_each_service_do_the_job_together");
    let mut command = up.command(&["replay", "--quiet", "--output", "json", "--speed", speed]);
    for (service, other) in &others {
        let both = format!("{},{}", up.address(service), other.address());
        command.env(format!("TIDINGS_{}_ADDR", service.to_uppercase()), both);
    }
    let replay = command.args(&logs).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();

    for (service, other) in &mut others {
        let before = sent(&up, conversation);
        eventually("messages are sent", || (sent(&up, conversation) > before + 5).then_some(()));
        other.kill();
        eprintln!("the second {service} is gone");
    }

    let summary = summary(replay);
    assert_eq!(count(&summary, "locks_lost_and_taken_again"), 0, "an instance is no lock: {summary}");
    assert_eq!(count(&summary, "gaps_and_resets_told_to_readers"), 0, "nor is it a channel: {summary}");
}

#[test]
fn while_broadcast_is_stopped_messages_are_kept_and_metrics_say_so_and_afterwards_they_are_pushed() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path());
    up.call("CreateConversation", r#"{"conversation": {"id": "lobby", "kind": "KIND_OPEN"}}"#);
    let say = |key: usize| {
        let request = format!(
            r#"{{"conversation_id": "lobby", "sender_id": "ada", "client_message_id": "{key}", "body": {{"text": "x"}}}}"#
        );
        up.call("AppendMessage", &request);
    };
    let waiting = || up.metric("history", "tidings_history_outbox_rows");
    eventually("nothing waits", || waiting().filter(|rows| *rows < 0.5));

    up.signal("broadcast", Signal::STOP);
    for key in 0..10 {
        say(key);
    }
    eventually("ten wait", || waiting().filter(|rows| (9.5..10.5).contains(rows)));
    eventually("and have waited", || {
        up.metric("history", "tidings_history_outbox_oldest_seconds").filter(|seconds| *seconds > 1.0)
    });
    up.signal("broadcast", Signal::CONT);

    eventually("nothing waits any more", || waiting().filter(|rows| *rows < 0.5));
    let channel = up.call("GetChannel", r#"{"name": "conversation/lobby"}"#);
    assert_eq!(channel["channel"]["head"], "10", "{channel}");
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
    let pushed = count(&summary, "messages_pushed_to_readers");
    assert_eq!(pushed, 3 * count(&summary, "messages_sent"), "each reader got each message pushed: {summary}");
    for none in ["messages_pushed_again", "gaps_and_resets_told_to_readers", "locks_lost_and_taken_again"] {
        assert_eq!(count(&summary, none), 0, "{none}: {summary}");
    }
    assert!(summary["users_from_the_cache"].as_i64().unwrap() > 0, "the second reading is from the cache: {summary}");
}
