//! `tidings replay` against real services, also while processes are killed: every line of a log is
//! read back exactly once.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use rustix::process::Signal;
use tidings_proto::history::GetConversationRequest;
use tidings_proto::history::conversation_service_client::ConversationServiceClient;
use tonic::transport::Endpoint;

use crate::support::{TidingsUp, eventually, output_of, real_logs, root, stderr};

/// Starts a replay at a speed that leaves time to kill processes.
fn replay(tidings: &TidingsUp, logs: &[PathBuf], speed: &str) -> Child {
    let mut command = tidings.command(&["replay", "--quiet", "--output", "json", "--speed", speed]);
    command.args(logs).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for a replay, which must succeed without lost or duplicated messages; returns its summary.
fn summary(replay: Child) -> serde_json::Value {
    let output = replay.wait_with_output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for name in ["lost", "duplicated", "differences"] {
        assert_eq!(summary[name], 0, "{name}: {summary}");
    }
    summary
}

/// Returns a count of a summary.
fn count(summary: &serde_json::Value, name: &str) -> i64 {
    summary[name].as_i64().unwrap_or_else(|| panic!("{name}: {summary}"))
}

/// Returns the number of messages in a conversation, 0 if history does not answer.
fn sent(tidings: &TidingsUp, conversation: &str) -> i64 {
    let history = format!("http://{}", tidings.address("history"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let response = runtime.block_on(async {
        let channel = Endpoint::from_shared(history).unwrap().timeout(Duration::from_secs(1)).connect().await.ok()?;
        let request = GetConversationRequest { id: conversation.to_owned() };
        ConversationServiceClient::new(channel).get_conversation(request).await.ok()?.into_inner().conversation
    });
    response.unwrap_or_default().last_seq
}

#[test]
fn the_demo_conversations_are_read_back_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let tidings = TidingsUp::start(dir.path());

    let output = output_of(&mut tidings.command(&["replay", "demo"]));

    assert!(output.status.success(), "{}", stderr(&output));
    let again = output_of(&mut tidings.command(&["replay", "demo"]));
    assert!(again.status.success(), "a second replay changes nothing: {}", stderr(&again));
}

/// Lines of each real log in the short form: enough for a replay to last through all faults.
const SHORT_LINES: usize = 600;

/// Returns logs for a slow replay, one of its conversations, and the messages per second of each
/// conversation. Without real logs, these are bundled ones at a lower speed.
fn slow_logs(test: &str, dir: &Path) -> (Vec<PathBuf>, &'static str, &'static str) {
    let Some(logs) = real_logs(test) else {
        return (vec![root().join("demo/ops-night.log")], "irc-ops-night", "1");
    };
    let mut logs = logs[2..5].to_vec();
    if !all_logs() {
        for path in &mut logs {
            let lines = fs::read_to_string(&*path).unwrap();
            let short = dir.join(path.file_name().unwrap());
            fs::write(&short, lines.split_inclusive('\n').take(SHORT_LINES).collect::<String>()).unwrap();
            *path = short;
        }
    }
    (logs, "irc-2005-08-08_01", "20")
}

/// Returns true in the long form: whole logs, and all of them.
fn all_logs() -> bool {
    env::var_os("TIDINGS_ALL_LOGS").is_some()
}

#[test]
fn a_replay_survives_a_crash_of_every_process() {
    let (dir, logs_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tidings = TidingsUp::start(dir.path());
    let (logs, conversation, speed) = slow_logs("a_replay_survives_a_crash_of_every_process", logs_dir.path());
    let replay = replay(&tidings, &logs, speed);
    let mut seen = 0;
    let mut wait_for_progress = |what: &str| {
        let before = seen;
        seen = eventually(&format!("messages are sent after {what}"), || {
            Some(sent(&tidings, conversation)).filter(|now| *now > before + 2)
        });
    };

    wait_for_progress("the start");
    for service in ["history", "broadcast", "lock"] {
        tidings.signal(service, Signal::KILL);
        wait_for_progress(&format!("{service} was killed"));
    }
    // Only a reader with a position in a channel can notice that the channel was lost.
    eventually("messages are pushed", || {
        tidings.metric("broadcast", "tidings_broadcast_delivered_messages_total").filter(|pushed| *pushed > 0.0)
    });
    tidings.flush_redis(); // loses locks and channels: sending stops until the quarantine ends
    wait_for_progress("redis was flushed");
    tidings.signal("user", Signal::KILL);
    tidings.signal("redis-server", Signal::STOP);
    thread::sleep(Duration::from_secs(2)); // long enough for every call to fail
    tidings.signal("redis-server", Signal::CONT);
    wait_for_progress("redis was stopped");
    tidings.signal("redis-server", Signal::KILL);
    wait_for_progress("redis was killed");
    tidings.signal("postgres", Signal::KILL);
    wait_for_progress("postgres was killed");

    let summary = summary(replay);
    for name in ["retries", "locks_lost_and_reacquired", "gaps_and_resets_received"] {
        assert!(count(&summary, name) > 0, "{name}: {summary}");
    }
    let (readers, messages) = (count(&summary, "readers_of_each_conversation"), count(&summary, "messages_sent"));
    let received = count(&summary, "messages_pushed_to_readers") + count(&summary, "messages_filled_from_history");
    assert_eq!(received, readers * messages, "{summary}");
}

#[test]
fn a_replay_survives_the_loss_of_one_instance_per_service() {
    let (dir, logs_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tidings = TidingsUp::start(dir.path());
    let mut others: Vec<_> =
        ["user", "history", "lock", "broadcast"].map(|service| (service, tidings.start_another(service))).into();
    let (logs, conversation, speed) =
        slow_logs("a_replay_survives_the_loss_of_one_instance_per_service", logs_dir.path());
    let mut command = tidings.command(&["replay", "--quiet", "--output", "json", "--speed", speed]);
    for (service, other) in &others {
        let both = format!("{},{}", tidings.address(service), other.address());
        command.env(format!("TIDINGS_{}_ADDR", service.to_uppercase()), both);
    }
    let replay = command.args(&logs).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();

    for (service, other) in &mut others {
        let before = sent(&tidings, conversation);
        eventually("messages are sent", || (sent(&tidings, conversation) > before + 5).then_some(()));
        other.kill();
        eprintln!("the second instance of {service} is killed");
    }

    let summary = summary(replay);
    assert_eq!(count(&summary, "locks_lost_and_reacquired"), 0, "losing an instance loses no lock: {summary}");
    assert_eq!(count(&summary, "gaps_and_resets_received"), 0, "losing an instance loses no message: {summary}");
}

#[test]
fn the_outbox_keeps_messages_while_broadcast_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let tidings = TidingsUp::start(dir.path());
    tidings.call("CreateConversation", r#"{"conversation": {"id": "lobby", "kind": "KIND_OPEN"}}"#);
    let append = |key: usize| {
        let request = format!(
            r#"{{"conversation_id": "lobby", "sender_id": "ada", "client_message_id": "{key}", "body": {{"text": "x"}}}}"#
        );
        tidings.call("AppendMessage", &request);
    };
    let outbox_rows = || tidings.metric("history", "tidings_history_outbox_rows");
    eventually("the outbox is empty", || outbox_rows().filter(|rows| *rows < 0.5));

    tidings.signal("broadcast", Signal::STOP);
    for key in 0..10 {
        append(key);
    }
    eventually("ten messages are in the outbox", || outbox_rows().filter(|rows| (9.5..10.5).contains(rows)));
    eventually("the oldest row is older than 1 s", || {
        tidings.metric("history", "tidings_history_outbox_oldest_seconds").filter(|seconds| *seconds > 1.0)
    });
    tidings.signal("broadcast", Signal::CONT);

    eventually("the outbox is empty again", || outbox_rows().filter(|rows| *rows < 0.5));
    let channel = tidings.call("GetChannel", r#"{"name": "conversation/lobby"}"#);
    assert_eq!(channel["channel"]["head"], "10", "{channel}");
}

/// Three conversations of 1,250 lines; all ten with `TIDINGS_ALL_LOGS`.
#[test]
fn real_conversations_are_read_back_unchanged() {
    let Some(mut logs) = real_logs("real_conversations_are_read_back_unchanged") else {
        return;
    };
    if !all_logs() {
        logs.truncate(3);
    }
    let dir = tempfile::tempdir().unwrap();
    let tidings = TidingsUp::start(dir.path());

    let mut command = tidings.command(&["replay", "--quiet", "--output", "json"]);
    let replay = command.args(&logs).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();

    let summary = summary(replay);
    assert_eq!(count(&summary, "conversations"), i64::try_from(logs.len()).unwrap(), "{summary}");
    let pushed = count(&summary, "messages_pushed_to_readers");
    assert_eq!(pushed, 3 * count(&summary, "messages_sent"), "every message is pushed to every reader: {summary}");
    for name in ["messages_pushed_again", "gaps_and_resets_received", "locks_lost_and_reacquired"] {
        assert_eq!(count(&summary, name), 0, "{name}: {summary}");
    }
    assert!(summary["users_from_the_cache"].as_i64().unwrap() > 0, "the second read comes from the cache: {summary}");
}
