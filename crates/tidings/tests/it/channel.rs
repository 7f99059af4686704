//! Tests of `tidings channel`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use prost::Message as _;
use rustix::process::Signal;
use serde_json::Value;
use tidings_proto::history::{Body, Message, body};

use crate::fake::broadcast::Channel;
use crate::fake::{Fake, FakeFaults};
use crate::{CommandResult, RunningCommand, command, ended, eventually, start, tidings};

fn fake() -> Fake {
    Fake::start(FakeFaults::default())
}

/// Publishes to the channel `orders` of a fake.
fn publish(fake: &Fake, arguments: &[&str]) -> CommandResult {
    let run = tidings(&[&["channel", "pub", "orders", "--addr", &fake.address()][..], arguments].concat());
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    run
}

/// Starts a subscriber of `orders`. Returns once the service has its subscription.
fn subscribe(fake: &Fake, arguments: &[&str]) -> RunningCommand {
    let before = fake.store().subscriptions;
    let running = start(&[&["channel", "sub", "orders", "--addr", &fake.address()][..], arguments].concat());
    eventually("the subscription was opened", || fake.store().subscriptions > before);
    running
}

/// Subscribes to `orders` and waits for the exit.
fn read(fake: &Fake, arguments: &[&str]) -> CommandResult {
    subscribe(fake, arguments).end()
}

/// Returns the last column of each line: the data.
fn data(run: &CommandResult) -> Vec<&str> {
    run.out.lines().map(|line| line.splitn(3, "  ").last().unwrap()).collect()
}

fn objects(run: &CommandResult) -> Vec<Value> {
    run.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn publish_prints_the_position() {
    let fake = fake();

    let run = publish(&fake, &["hello"]);
    let json: Value = serde_json::from_str(&publish(&fake, &["again", "--output", "json"]).out).unwrap();

    assert_eq!(run.out, "epoch   e1\noffset  1\n");
    assert_eq!((&json["epoch"], &json["offset"]), (&"e1".into(), &"2".into()));
}

#[test]
fn a_message_is_delivered_with_content_type_and_attributes() {
    let fake = fake();
    publish(&fake, &["{}", "--content-type", "application/json", "--attribute", "from=ada", "--attribute", "to=b=o"]);

    let run = read(&fake, &["--last", "1", "--count", "1", "--output", "jsonl"]);

    assert_eq!(run.code, 0);
    let message = &objects(&run)[0]["message"];
    assert_eq!(message["contentType"], "application/json");
    assert_eq!((&message["attributes"]["from"], &message["attributes"]["to"]), (&"ada".into(), &"b=o".into()));
    assert_eq!(objects(&run)[0]["text"], "{}");
}

#[test]
fn data_are_read_from_standard_input() {
    let fake = fake();
    let mut child = command(&["channel", "pub", "orders", "-", "--addr", &fake.address()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"from a pipe\0").unwrap();
    assert_eq!(ended(&child.wait_with_output().unwrap()).code, 0);

    assert_eq!(fake.store().channels["orders"].messages[0].data, &b"from a pipe\0"[..]);
}

#[test]
fn the_same_request_id_publishes_once() {
    let fake = fake();
    let mine = ["hello", "--request-id", "mine", "--output", "json"];
    publish(&fake, &mine);

    let again: Value = serde_json::from_str(&publish(&fake, &mine).out).unwrap();

    assert_eq!((&again["offset"], &again["deduplicated"]), (&"1".into(), &true.into()));
    publish(&fake, &["hello"]);
    assert_eq!(
        fake.store().channels["orders"].messages.len(),
        2,
        "without a request id, every publish is a new message"
    );
}

#[test]
fn a_subscriber_prints_new_messages_and_ends_after_count() {
    let fake = fake();
    publish(&fake, &["before"]);
    let subscriber = subscribe(&fake, &["--count", "2"]);

    publish(&fake, &["one"]);
    publish(&fake, &["two"]);

    let run = subscriber.end();
    assert_eq!((run.code, data(&run)), (0, vec!["one", "two"]));
    assert_eq!(run.err, "orders: subscribed after e1:1\n");
    assert!(
        run.out.starts_with("2  20") && run.out.contains("Z  one\n"),
        "a line begins with offset and time: {}",
        run.out
    );
}

#[test]
fn with_several_channels_a_line_begins_with_its_channel() {
    let fake = fake();
    publish(&fake, &["one"]);

    let run = read(&fake, &["refunds", "--last", "1", "--count", "1"]);

    assert!(run.out.starts_with("orders  1  "), "{}", run.out);
}

#[test]
fn a_subscriber_starts_after_a_position() {
    let fake = fake();
    for text in ["one", "two", "three"] {
        publish(&fake, &[text]);
    }

    let run = read(&fake, &["--from", "e1:1", "--count", "2"]);

    assert_eq!(data(&run), ["two", "three"]);
}

/// A subscription survives restarts of the service without lost or duplicate messages.
#[test]
fn a_subscription_survives_restarts_of_the_service() {
    let mut fake = fake();
    let subscriber = subscribe(&fake, &["--from", "e1:0", "--count", "30"]);

    for round in 0..3 {
        for message in 0..10 {
            publish(&fake, &[&format!("{}", round * 10 + message)]);
        }
        fake.kill();
        fake.restart();
    }

    let run = subscriber.end();
    assert_eq!(run.code, 0);
    assert_eq!(data(&run), (0..30).map(|number| number.to_string()).collect::<Vec<_>>());
}

/// A gap is reported on standard error in the table format, and as an object in JSON.
#[test]
fn a_gap_is_reported_as_a_sentence_or_an_object() {
    let fake = fake();
    for text in ["one", "two", "three"] {
        publish(&fake, &[text]);
    }
    fake.store().channels.get_mut("orders").unwrap().trimmed = 2;

    let table = read(&fake, &["--from", "e1:0", "--count", "1"]);
    let lines = read(&fake, &["--from", "e1:0", "--count", "1", "--output", "jsonl"]);

    assert_eq!(table.err, "orders: gap: messages 1 to 2 are missing (no longer retained)\n");
    assert_eq!(data(&table), ["three"]);
    assert_eq!(objects(&lines)[0]["gap"]["lastOffset"], "2");
    assert_eq!((objects(&lines)[1]["text"].as_str(), lines.err.as_str()), (Some("three"), ""));
}

#[test]
fn a_reset_is_reported() {
    let fake = fake();
    publish(&fake, &["one"]);
    let subscriber = subscribe(&fake, &["--count", "1"]);

    fake.store().channels.insert("orders".into(), Channel::new("e2"));
    publish(&fake, &["first of the new"]);

    let run = subscriber.end();
    assert_eq!(data(&run), ["first of the new"]);
    assert!(run.err.contains("orders: reset: new epoch e2; messages may be missing here\n"), "{}", run.err);
}

#[test]
fn a_history_message_is_printed_with_seq_and_sender() {
    let fake = fake();
    let body = Some(Body { content: Some(body::Content::Text("hello".into())) });
    let message = Message { seq: 12, sender_id: "ada".into(), body, ..Default::default() };
    let request = tidings_proto::broadcast::PublishRequest {
        channel: "orders".into(),
        data: message.encode_to_vec().into(),
        content_type: "application/x-protobuf;type=tidings.history.v1.Message".into(),
        ..Default::default()
    };
    fake.store().publish(request);

    let table = read(&fake, &["--last", "1", "--count", "1"]);
    let lines = read(&fake, &["--last", "1", "--count", "1", "--output", "jsonl"]);

    assert_eq!(data(&table), ["12 ada: hello"]);
    assert_eq!(objects(&lines)[0]["decoded"]["senderId"], "ada");
}

#[test]
fn ctrl_c_ends_a_subscriber_with_success() {
    let fake = fake();
    let mut subscriber = subscribe(&fake, &[]);
    let mut first = String::new();
    BufReader::new(subscriber.0.stderr.as_mut().unwrap()).read_line(&mut first).unwrap();

    subscriber.signal(Signal::INT);

    assert_eq!(subscriber.end().code, 0);
}

#[test]
fn a_closed_pipe_ends_a_subscriber_with_success() {
    let fake = fake();
    let mut subscriber = subscribe(&fake, &[]);
    drop(subscriber.0.stdout.take());

    let mut status = None;
    eventually("a message made the subscriber notice the closed pipe", || {
        publish(&fake, &["hello"]);
        status = subscriber.0.try_wait().unwrap();
        status.is_some()
    });

    assert_eq!(status.unwrap().code(), Some(0));
}

#[test]
fn a_subscriber_of_an_unreachable_service_times_out() {
    let mut fake = fake();
    let subscriber = subscribe(&fake, &["--timeout", "500ms"]);
    fake.kill();

    let run = subscriber.end();

    assert_eq!(run.code, 3);
    assert!(run.err.contains("tidings: Subscribe: ") && run.err.contains("gave up after"), "{}", run.err);
}
