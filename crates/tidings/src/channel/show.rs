//! Formats the events of a subscription, for people and for programs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use serde_json::{Value, json};
use tidings_client::Event;
use tidings_proto::broadcast::gap::Reason;
use tidings_proto::broadcast::{CaughtUp, Gap, Message, Reset};
use tidings_proto::history::message::State;
use tidings_proto::history::{self, body};

use crate::args::Output;
use crate::contracts::Contracts;
use crate::display::{one_line, timestamp};

/// Full name of the message that the history service publishes on the channel of a conversation.
const HISTORY_MESSAGE: &str = "tidings.history.v1.Message";

/// Formats events in one output format.
#[derive(Debug)]
pub(super) struct EventFormatter {
    output: Output,
    contracts: Contracts,
    several: bool,
}

/// The decoded data of a message.
enum MessageData {
    History(Box<history::Message>),
    Text(String),
    Binary,
}

impl MessageData {
    fn of(message: &Message) -> Self {
        if is_history(&message.content_type)
            && let Ok(message) = history::Message::decode(message.data.clone())
        {
            return Self::History(Box::new(message));
        }
        let is_text = |text: &&str| text.chars().all(|char| !char.is_control() || ['\n', '\r', '\t'].contains(&char));
        let text = str::from_utf8(&message.data).ok().filter(is_text);
        text.map_or(Self::Binary, |text| Self::Text(text.to_owned()))
    }
}

/// Returns whether a media type is `application/x-protobuf; type=tidings.history.v1.Message`, with
/// any spacing.
fn is_history(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/x-protobuf"))
        && parts
            .filter_map(|part| part.split_once('='))
            .any(|(name, value)| name.eq_ignore_ascii_case("type") && value.trim_matches('"') == HISTORY_MESSAGE)
}

impl EventFormatter {
    /// Creates a formatter. With `several` channels, each line of a table begins with its channel.
    pub(super) fn new(output: Output, several: bool) -> Self {
        Self { output, contracts: Contracts::compiled_in(), several }
    }

    /// Formats an event: in one line, unless the format is indented JSON.
    pub(super) fn event(&self, event: &Event) -> String {
        match self.output {
            Output::Table => self.line(event),
            output => output.json(&self.json(event)),
        }
    }

    fn line(&self, event: &Event) -> String {
        match event {
            Event::Message(message) => self.message_line(message),
            Event::CaughtUp(CaughtUp { channel, epoch, head }) if epoch.is_empty() => {
                format!("{channel}: subscribed; no message published yet (offset {head})")
            }
            Event::CaughtUp(CaughtUp { channel, epoch, head }) => format!("{channel}: subscribed after {epoch}:{head}"),
            Event::Gap(gap) => {
                let Gap { channel, first_offset, last_offset, .. } = gap;
                let why = match gap.reason() {
                    Reason::Trimmed => "no longer retained",
                    Reason::Unspecified => "lost without notice from the service",
                };
                format!("{channel}: gap: messages {first_offset} to {last_offset} are missing ({why})")
            }
            Event::Reset(Reset { channel, epoch, .. }) => {
                format!("{channel}: reset: new epoch {epoch}; messages may be missing here")
            }
        }
    }

    fn message_line(&self, message: &Message) -> String {
        let channel = if self.several { format!("{}  ", message.channel) } else { String::new() };
        let time = timestamp(message.publish_time);
        let data = match MessageData::of(message) {
            MessageData::History(message) => history_line(&message),
            MessageData::Text(text) => one_line(&text),
            MessageData::Binary => format!("base64:{}", STANDARD.encode(&message.data)),
        };
        format!("{channel}{}  {time}  {data}", message.offset)
    }

    fn json(&self, event: &Event) -> Value {
        let object = |name: &str, message: Value| Value::Object([(name.to_owned(), message)].into_iter().collect());
        match event {
            Event::Message(message) => {
                let mut value = object("message", self.contracts.json("tidings.broadcast.v1.Message", message));
                match MessageData::of(message) {
                    MessageData::History(message) => value["decoded"] = self.contracts.json(HISTORY_MESSAGE, &*message),
                    MessageData::Text(text) => value["text"] = json!(text),
                    MessageData::Binary => {}
                }
                value
            }
            Event::CaughtUp(event) => object("caughtUp", self.contracts.json("tidings.broadcast.v1.CaughtUp", event)),
            Event::Gap(event) => object("gap", self.contracts.json("tidings.broadcast.v1.Gap", event)),
            Event::Reset(event) => object("reset", self.contracts.json("tidings.broadcast.v1.Reset", event)),
        }
    }
}

/// Formats a message of the history service as `seq sender: text`.
fn history_line(message: &history::Message) -> String {
    let text = match message.body.as_ref().and_then(|body| body.content.as_ref()) {
        _ if message.state() == State::Recalled => "(recalled)".to_owned(),
        Some(body::Content::Text(text)) => one_line(text),
        Some(body::Content::Binary(binary)) => format!("({}, {} bytes)", binary.content_type, binary.data.len()),
        None => String::new(),
    };
    format!("{} {}: {text}", message.seq, message.sender_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(content_type: &str, data: impl Into<bytes::Bytes>) -> Message {
        let publish_time = Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 });
        let (channel, epoch, content_type) = ("c".into(), "e".into(), content_type.into());
        Message { channel, epoch, offset: 7, publish_time, data: data.into(), content_type, ..Default::default() }
    }

    fn history_message(text: &str) -> history::Message {
        let body = Some(history::Body { content: Some(body::Content::Text(text.into())) });
        history::Message { seq: 3, sender_id: "ada".into(), body, ..Default::default() }
    }

    fn line(message: Message) -> String {
        EventFormatter::new(Output::Table, false).event(&Event::Message(message))
    }

    fn object(event: &Event) -> Value {
        serde_json::from_str(&EventFormatter::new(Output::Jsonl, false).event(event)).unwrap()
    }

    #[test]
    fn text_is_printed_in_one_line() {
        assert_eq!(line(message("", "péage")), "7  2023-11-14T22:13:20.005Z  péage");
        assert_eq!(line(message("text/plain", "one\ntwo\n")), r"7  2023-11-14T22:13:20.005Z  one\ntwo\n");
    }

    #[test]
    fn unprintable_data_are_printed_as_base64() {
        assert!(line(message("", &b"\xff\x00"[..])).ends_with("  base64:/wA="));
        assert!(line(message("", "\x1b[2J")).ends_with("  base64:G1sySg=="));
    }

    #[test]
    fn a_history_message_is_printed_with_seq_and_sender() {
        let data = history_message("hello\n").encode_to_vec();

        for spaced in ["application/x-protobuf; type=", "application/x-protobuf;type="] {
            let line = line(message(&format!("{spaced}{HISTORY_MESSAGE}"), data.clone()));
            assert!(line.ends_with(r"Z  3 ada: hello\n"), "{line}");
        }
        assert!(line(message("application/x-protobuf; type=other", data)).contains("base64:"));
    }

    #[test]
    fn data_that_contradict_their_content_type_are_printed_raw() {
        let content_type = format!("application/x-protobuf; type={HISTORY_MESSAGE}");

        assert!(line(message(&content_type, "plain text")).ends_with("  plain text"));
    }

    #[test]
    fn recalled_and_binary_history_messages_are_described() {
        let recalled = history::Message { state: State::Recalled.into(), body: None, ..history_message("") };
        let binary = history::Binary { data: vec![0; 9].into(), content_type: "image/png".into() };
        let image = history::Message {
            body: Some(history::Body { content: Some(body::Content::Binary(binary)) }),
            ..history_message("")
        };

        assert_eq!(history_line(&recalled), "3 ada: (recalled)");
        assert_eq!(history_line(&image), "3 ada: (image/png, 9 bytes)");
    }

    #[test]
    fn an_object_has_every_field_and_the_decoded_data() {
        let text = object(&Event::Message(message("text/plain", "hello")));
        let content_type = format!("application/x-protobuf; type={HISTORY_MESSAGE}");
        let decoded = object(&Event::Message(message(&content_type, history_message("hi").encode_to_vec())));

        assert_eq!(text["message"]["data"], "aGVsbG8=");
        assert_eq!((&text["message"]["offset"], &text["message"]["epoch"]), (&json!("7"), &json!("e")));
        assert_eq!(text["text"], "hello");
        assert_eq!(decoded["decoded"]["body"]["text"], "hi");
        assert_eq!(decoded.get("text"), None);
    }

    #[test]
    fn gaps_and_resets_are_objects_and_sentences() {
        let gap = |reason: Reason| {
            let (channel, epoch, reason) = ("c".into(), "e".into(), reason.into());
            Event::Gap(Gap { channel, epoch, first_offset: 2, last_offset: 4, reason })
        };
        let reset = Event::Reset(Reset { channel: "c".into(), epoch: "f".into(), head: 9 });
        let table = EventFormatter::new(Output::Table, false);

        assert_eq!(object(&gap(Reason::Trimmed))["gap"]["lastOffset"], "4");
        assert_eq!(object(&reset)["reset"]["epoch"], "f");
        assert!(
            table.event(&gap(Reason::Trimmed)).ends_with("c: gap: messages 2 to 4 are missing (no longer retained)")
        );
        assert!(table.event(&gap(Reason::Unspecified)).ends_with("(lost without notice from the service)"));
        assert!(table.event(&reset).contains("c: reset: new epoch f;"));
    }

    #[test]
    fn with_several_channels_a_line_begins_with_its_channel() {
        let several = EventFormatter::new(Output::Table, true);

        assert!(several.event(&Event::Message(message("", "x"))).starts_with("c  7  "));
    }
}
