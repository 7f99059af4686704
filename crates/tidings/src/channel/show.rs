//! What comes from a channel, for people and for programs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use serde_json::{Value, json};
use tidings_client::Event;
use tidings_proto::broadcast::gap::Reason;
use tidings_proto::broadcast::{CaughtUp, Gap, Message, Reset};
use tidings_proto::history::message::State;
use tidings_proto::history::{self, body};

use crate::cli::Output;
use crate::contracts::Contracts;
use crate::shown::{moment, one_line};

/// The message that the history service publishes on the channel of a conversation.
const HISTORY_MESSAGE: &str = "tidings.history.v1.Message";

/// How events are shown.
#[derive(Debug)]
pub(super) struct Shown {
    output: Output,
    contracts: Contracts,
    several: bool,
}

/// What data turned out to be.
enum Data {
    History(Box<history::Message>),
    Text(String),
    Binary,
}

impl Data {
    fn of(message: &Message) -> Self {
        if is_history(&message.content_type)
            && let Ok(message) = history::Message::decode(message.data.clone())
        {
            return Self::History(Box::new(message));
        }
        let is_text = |text: &&str| text.chars().all(|sign| !sign.is_control() || ['\n', '\r', '\t'].contains(&sign));
        let text = str::from_utf8(&message.data).ok().filter(is_text);
        text.map_or(Self::Binary, |text| Self::Text(text.to_owned()))
    }
}

/// Whether a media type is `application/x-protobuf; type=tidings.history.v1.Message`, however it is spaced.
fn is_history(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/x-protobuf"))
        && parts
            .filter_map(|part| part.split_once('='))
            .any(|(name, value)| name.eq_ignore_ascii_case("type") && value.trim_matches('"') == HISTORY_MESSAGE)
}

impl Shown {
    /// Shows events in this format; lines of a table name their channel if there are `several`.
    pub(super) fn new(output: Output, several: bool) -> Self {
        Self { output, contracts: Contracts::compiled_in(), several }
    }

    /// An event, in one line unless it is to be readable JSON.
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
                format!("{channel}: listening; nothing was published yet (offset {head})")
            }
            Event::CaughtUp(CaughtUp { channel, epoch, head }) => format!("{channel}: listening after {epoch}:{head}"),
            Event::Gap(gap) => {
                let Gap { channel, first_offset, last_offset, .. } = gap;
                let why = match gap.reason() {
                    Reason::Trimmed => "they are not kept any more",
                    Reason::Unspecified => "the service did not say so",
                };
                format!("{channel}: messages {first_offset} to {last_offset} are missing: {why}")
            }
            Event::Reset(Reset { channel, epoch, .. }) => {
                format!("{channel}: begins anew (epoch {epoch}); messages may be missing here")
            }
        }
    }

    fn message_line(&self, message: &Message) -> String {
        let channel = if self.several { format!("{}  ", message.channel) } else { String::new() };
        let time = moment(message.publish_time);
        let data = match Data::of(message) {
            Data::History(message) => history_line(&message),
            Data::Text(text) => one_line(&text),
            Data::Binary => format!("base64:{}", STANDARD.encode(&message.data)),
        };
        format!("{channel}{}  {time}  {data}", message.offset)
    }

    fn json(&self, event: &Event) -> Value {
        let of = |name: &str, message: Value| Value::Object([(name.to_owned(), message)].into_iter().collect());
        match event {
            Event::Message(message) => {
                let mut shown = of("message", self.contracts.json("tidings.broadcast.v1.Message", message));
                match Data::of(message) {
                    Data::History(message) => shown["decoded"] = self.contracts.json(HISTORY_MESSAGE, &*message),
                    Data::Text(text) => shown["text"] = json!(text),
                    Data::Binary => {}
                }
                shown
            }
            Event::CaughtUp(event) => of("caughtUp", self.contracts.json("tidings.broadcast.v1.CaughtUp", event)),
            Event::Gap(event) => of("gap", self.contracts.json("tidings.broadcast.v1.Gap", event)),
            Event::Reset(event) => of("reset", self.contracts.json("tidings.broadcast.v1.Reset", event)),
        }
    }
}

/// `seq sender: text`.
fn history_line(message: &history::Message) -> String {
    let says = match message.body.as_ref().and_then(|body| body.content.as_ref()) {
        _ if message.state() == State::Recalled => "(recalled)".to_owned(),
        Some(body::Content::Text(text)) => one_line(text),
        Some(body::Content::Binary(binary)) => format!("({}, {} bytes)", binary.content_type, binary.data.len()),
        None => String::new(),
    };
    format!("{} {}: {says}", message.seq, message.sender_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(content_type: &str, data: impl Into<bytes::Bytes>) -> Message {
        let publish_time = Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 });
        let (channel, epoch, content_type) = ("c".into(), "e".into(), content_type.into());
        Message { channel, epoch, offset: 7, publish_time, data: data.into(), content_type, ..Default::default() }
    }

    fn said(text: &str) -> history::Message {
        let body = Some(history::Body { content: Some(body::Content::Text(text.into())) });
        history::Message { seq: 3, sender_id: "ada".into(), body, ..Default::default() }
    }

    fn line(message: Message) -> String {
        Shown::new(Output::Table, false).event(&Event::Message(message))
    }

    fn object(event: &Event) -> Value {
        serde_json::from_str(&Shown::new(Output::Jsonl, false).event(event)).unwrap()
    }

    #[test]
    fn text_is_shown_as_it_is_in_one_line() {
        assert_eq!(line(message("", "péage")), "7  2023-11-14T22:13:20.005Z  péage");
        assert_eq!(line(message("text/plain", "one\ntwo\n")), r"7  2023-11-14T22:13:20.005Z  one\ntwo\n");
    }

    #[test]
    fn what_is_not_printable_is_shown_as_base64() {
        assert!(line(message("", &b"\xff\x00"[..])).ends_with("  base64:/wA="));
        assert!(line(message("", "\x1b[2J")).ends_with("  base64:G1sySg=="));
    }

    #[test]
    fn a_message_of_a_conversation_is_shown_with_its_number_and_sender() {
        let data = said("hello\n").encode_to_vec();

        for spaced in ["application/x-protobuf; type=", "application/x-protobuf;type="] {
            let line = line(message(&format!("{spaced}{HISTORY_MESSAGE}"), data.clone()));
            assert!(line.ends_with(r"Z  3 ada: hello\n"), "{line}");
        }
        assert!(line(message("application/x-protobuf; type=other", data)).contains("base64:"));
    }

    #[test]
    fn data_that_are_not_what_they_are_said_to_be_are_shown_as_they_are() {
        let content_type = format!("application/x-protobuf; type={HISTORY_MESSAGE}");

        assert!(line(message(&content_type, "plain text")).ends_with("  plain text"));
    }

    #[test]
    fn what_no_longer_says_anything_and_what_is_no_text_are_said_in_words() {
        let recalled = history::Message { state: State::Recalled.into(), body: None, ..said("") };
        let binary = history::Binary { data: vec![0; 9].into(), content_type: "image/png".into() };
        let image =
            history::Message { body: Some(history::Body { content: Some(body::Content::Binary(binary)) }), ..said("") };

        assert_eq!(history_line(&recalled), "3 ada: (recalled)");
        assert_eq!(history_line(&image), "3 ada: (image/png, 9 bytes)");
    }

    #[test]
    fn an_object_has_everything_and_what_the_data_say() {
        let text = object(&Event::Message(message("text/plain", "hello")));
        let content_type = format!("application/x-protobuf; type={HISTORY_MESSAGE}");
        let decoded = object(&Event::Message(message(&content_type, said("hi").encode_to_vec())));

        assert_eq!(text["message"]["data"], "aGVsbG8=");
        assert_eq!((&text["message"]["offset"], &text["message"]["epoch"]), (&json!("7"), &json!("e")));
        assert_eq!(text["text"], "hello");
        assert_eq!(decoded["decoded"]["body"]["text"], "hi");
        assert_eq!(decoded.get("text"), None);
    }

    #[test]
    fn what_is_missing_is_an_object_of_its_own_and_a_sentence() {
        let gap = |reason: Reason| {
            let (channel, epoch, reason) = ("c".into(), "e".into(), reason.into());
            Event::Gap(Gap { channel, epoch, first_offset: 2, last_offset: 4, reason })
        };
        let reset = Event::Reset(Reset { channel: "c".into(), epoch: "f".into(), head: 9 });
        let table = Shown::new(Output::Table, false);

        assert_eq!(object(&gap(Reason::Trimmed))["gap"]["lastOffset"], "4");
        assert_eq!(object(&reset)["reset"]["epoch"], "f");
        assert!(table.event(&gap(Reason::Trimmed)).starts_with("c: messages 2 to 4 are missing: they are not kept"));
        assert!(table.event(&gap(Reason::Unspecified)).ends_with("the service did not say so"));
        assert!(table.event(&reset).contains("c: begins anew (epoch f)"));
    }

    #[test]
    fn a_line_names_its_channel_if_there_are_several() {
        let several = Shown::new(Output::Table, true);

        assert!(several.event(&Event::Message(message("", "x"))).starts_with("c  7  "));
    }
}
