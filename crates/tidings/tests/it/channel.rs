//! `tidings channel`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use prost::Message as _;
use rustix::process::Signal;
use serde_json::Value;
use tidings_proto::history::{Body, Message, body};

use crate::fake::broadcast::Channel;
use crate::fake::{Fake, Faults};
use crate::{Run, Running, command, ended, eventually, start, tidings};

fn fake() -> Fake {
    Fake::start(Faults::default())
}

/// Publishes to `orders` at a fake.
fn publish(fake: &Fake, arguments: &[&str]) -> Run {
    let run = tidings(&[&["channel", "pub", "orders", "--addr", &fake.address()][..], arguments].concat());
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    run
}

/// Starts to listen to `orders`; returns when the service has the subscription.
fn listen(fake: &Fake, arguments: &[&str]) -> Running {
    let before = fake.store().subscriptions;
    let running = start(&[&["channel", "sub", "orders", "--addr", &fake.address()][..], arguments].concat());
    eventually("it is subscribed", || fake.store().subscriptions > before);
    running
}

/// Reads what was published, to the end.
fn read(fake: &Fake, arguments: &[&str]) -> Run {
    listen(fake, arguments).end()
}

/// The last column of each line: the data.
fn data(run: &Run) -> Vec<&str> {
    run.out.lines().map(|line| line.splitn(3, "  ").last().unwrap()).collect()
}

fn objects(run: &Run) -> Vec<Value> {
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
fn a_message_is_delivered_as_it_was_given() {
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
    assert_eq!(fake.store().channels["orders"].messages.len(), 2, "without a request id each is one of its own");
}

#[test]
fn a_subscriber_gets_what_is_published_and_ends_when_it_has_enough() {
    let fake = fake();
    publish(&fake, &["before"]);
    let subscriber = listen(&fake, &["--count", "2"]);

    publish(&fake, &["one"]);
    publish(&fake, &["two"]);

    let run = subscriber.end();
    assert_eq!((run.code, data(&run)), (0, vec!["one", "two"]));
    assert_eq!(run.err, "orders: listening after e1:1\n");
    assert!(run.out.starts_with("2  20") && run.out.contains("Z  one\n"), "offset and time come first: {}", run.out);
}

#[test]
fn several_channels_are_told_apart() {
    let fake = fake();
    publish(&fake, &["one"]);

    let run = read(&fake, &["refunds", "--last", "1", "--count", "1"]);

    assert!(run.out.starts_with("orders  1  "), "{}", run.out);
}

#[test]
fn a_subscriber_begins_behind_a_position() {
    let fake = fake();
    for text in ["one", "two", "three"] {
        publish(&fake, &[text]);
    }

    let run = read(&fake, &["--from", "e1:1", "--count", "2"]);

    assert_eq!(data(&run), ["two", "three"]);
}

#[test]
fn a_subscription_outlives_the_service_and_nothing_comes_twice_or_is_missing() {
    let mut fake = fake();
    let subscriber = listen(&fake, &["--from", "e1:0", "--count", "30"]);

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

#[test]
fn what_is_missing_is_said_on_standard_error_and_in_an_object_of_its_own() {
    let fake = fake();
    for text in ["one", "two", "three"] {
        publish(&fake, &[text]);
    }
    fake.store().channels.get_mut("orders").unwrap().trimmed = 2;

    let table = read(&fake, &["--from", "e1:0", "--count", "1"]);
    let lines = read(&fake, &["--from", "e1:0", "--count", "1", "--output", "jsonl"]);

    assert_eq!(table.err, "orders: messages 1 to 2 are missing: they are not kept any more\n");
    assert_eq!(data(&table), ["three"]);
    assert_eq!(objects(&lines)[0]["gap"]["lastOffset"], "2");
    assert_eq!((objects(&lines)[1]["text"].as_str(), lines.err.as_str()), (Some("three"), ""));
}

#[test]
fn a_channel_that_begins_anew_is_said() {
    let fake = fake();
    publish(&fake, &["one"]);
    let subscriber = listen(&fake, &["--count", "1"]);

    fake.store().channels.insert("orders".into(), Channel::new("e2"));
    publish(&fake, &["first of the new"]);

    let run = subscriber.end();
    assert_eq!(data(&run), ["first of the new"]);
    assert!(run.err.contains("orders: begins anew (epoch e2); messages may be missing here\n"), "{}", run.err);
}

#[test]
fn a_message_of_a_conversation_is_shown_with_its_number_and_sender() {
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
fn ctrl_c_ends_it_well() {
    let fake = fake();
    let mut subscriber = listen(&fake, &[]);
    let mut first = String::new();
    BufReader::new(subscriber.0.stderr.as_mut().unwrap()).read_line(&mut first).unwrap();

    subscriber.signal(Signal::INT);

    assert_eq!(subscriber.end().code, 0);
}

#[test]
fn a_reader_that_has_seen_enough_ends_it() {
    let fake = fake();
    let mut subscriber = listen(&fake, &[]);
    drop(subscriber.0.stdout.take());

    let mut status = None;
    eventually("it has noticed by a message that nobody reads it", || {
        publish(&fake, &["hello"]);
        status = subscriber.0.try_wait().unwrap();
        status.is_some()
    });

    assert_eq!(status.unwrap().code(), Some(0));
}

#[test]
fn a_service_that_stays_away_is_given_up() {
    let mut fake = fake();
    let subscriber = listen(&fake, &["--timeout", "500ms"]);
    fake.kill();

    let run = subscriber.end();

    assert_eq!(run.code, 3);
    assert!(run.err.contains("tidings: Subscribe: ") && run.err.contains("gave up after"), "{}", run.err);
}
