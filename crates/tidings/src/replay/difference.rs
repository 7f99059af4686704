//! Where what was read is not what was sent.

use std::fmt;

use tidings_proto::history::{self as pb, body};

use super::plan::{Conversation, Message};
use super::services::Error;

/// How much of a long value is shown.
const SHOWN: usize = 160;

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    place: String,
    field: &'static str,
    expected: String,
    read: String,
    during: &'static str,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, field, expected, read, during } = self;
        write!(f, "{place}: {field}, {during}\n  expected: {expected}\n  read:     {read}")
    }
}

impl Difference {
    fn new(place: String, field: &'static str, expected: String, read: String) -> Self {
        Self { place, field, expected, read, during: "" }
    }

    /// Says in which reading it was found.
    #[must_use]
    pub(super) fn during(self, during: &'static str) -> Self {
        Self { during, ..self }
    }

    /// A difference in a user.
    pub(super) fn user(id: &str, field: &'static str, expected: &str, read: &str) -> Self {
        Self::new(format!("user {id}"), field, expected.to_owned(), read.to_owned())
    }

    /// A difference in a conversation as a whole.
    pub(super) fn conversation(
        conversation: &Conversation,
        field: &'static str,
        expected: impl fmt::Display,
        read: impl fmt::Display,
    ) -> Self {
        let place = format!("conversation {} ({})", conversation.id, conversation.path.display());
        Self::new(place, field, expected.to_string(), read.to_string())
    }

    /// The service says that a message cannot be, or that it is not there.
    pub(super) fn contradicted(conversation: &Conversation, message: &Message, error: &Error) -> Option<Self> {
        let failure = error.contradiction()?;
        Some(Self::new(place(conversation, message), "message", shown(message), failure.to_string()))
    }

    /// Finds the first field in which `read` is not `expected`; `None` on either side is the end of the messages.
    pub(super) fn find(
        conversation: &Conversation,
        expected: Option<&Message>,
        read: Option<&pb::Message>,
    ) -> Option<Self> {
        let (field, expected_value, read_value) = match (expected, read) {
            (None, None) => return None,
            (Some(expected), None) => ("message", shown(expected), "no further message".to_owned()),
            (None, Some(read)) => {
                let read = format!("seq {} {} of {}", read.seq, read.client_message_id, read.sender_id);
                return Some(Self::conversation(conversation, "message", "no further message", read));
            }
            (Some(expected), Some(read)) => differing_field(expected, read)?,
        };
        let place = expected.map(|message| place(conversation, message)).unwrap_or_default();
        Some(Self::new(place, field, expected_value, read_value))
    }
}

fn place(conversation: &Conversation, message: &Message) -> String {
    let Conversation { id, path, .. } = conversation;
    format!("conversation {id} ({}), line {}, seq {}", path.display(), message.line, message.seq)
}

fn shown(message: &Message) -> String {
    format!("{} of {}", message.request.client_message_id, message.request.sender_id)
}

fn differing_field(expected: &Message, read: &pb::Message) -> Option<(&'static str, String, String)> {
    let Message { seq, request, .. } = expected;
    let text = |body: &Option<pb::Body>| match body.as_ref().and_then(|body| body.content.as_ref()) {
        Some(body::Content::Text(text)) => Some(text.clone()),
        _ => None,
    };
    let named = |seq: i64, id: &str, sender: &str| format!("seq {seq}, {id} of {sender}");
    if (*seq, &request.client_message_id, &request.sender_id) != (read.seq, &read.client_message_id, &read.sender_id) {
        let expected = named(*seq, &request.client_message_id, &request.sender_id);
        return Some(("message", expected, named(read.seq, &read.client_message_id, &read.sender_id)));
    }
    if request.conversation_id != read.conversation_id {
        return Some(("conversation_id", request.conversation_id.clone(), read.conversation_id.clone()));
    }
    if request.reply_to_seq != read.reply_to_seq {
        return Some(("reply_to_seq", request.reply_to_seq.to_string(), read.reply_to_seq.to_string()));
    }
    if request.attributes != read.attributes {
        return Some(("attributes", format!("{:?}", request.attributes), format!("{:?}", read.attributes)));
    }
    match (text(&request.body), text(&read.body)) {
        (expected, read) if expected == read => None,
        (expected, None) => Some(("text", excerpt(&expected.unwrap_or_default(), 0), "no text".to_owned())),
        (expected, Some(read)) => {
            let expected = expected.unwrap_or_default();
            let same = expected.chars().zip(read.chars()).take_while(|(one, other)| one == other).count();
            Some(("text", excerpt(&expected, same), excerpt(&read, same)))
        }
    }
}

/// Quotes a text around its `at`th character.
fn excerpt(text: &str, at: usize) -> String {
    const BEFORE: usize = 20;
    let skipped = if text.chars().nth(SHOWN).is_some() { at.saturating_sub(BEFORE) } else { 0 };
    let part: String = text.chars().skip(skipped).take(SHOWN).collect();
    let more = text.chars().nth(skipped + SHOWN).is_some();
    format!("{}{part:?}{}", if skipped > 0 { "..." } else { "" }, if more { "..." } else { "" })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::replay::files::Source;
    use crate::replay::plan::Plan;
    use crate::replay::{log, replies};

    type Alter = fn(&mut pb::Message);

    fn conversation() -> Conversation {
        let mut plan = Plan::default();
        let source = Source { path: PathBuf::from("a.log"), id: "irc-a".into(), title: "a.log".into() };
        plan.add(source, log::parse(b"=== in\n[12:59] <Ada> hi\n"), &replies::parse(b""));
        plan.conversations.remove(0)
    }

    fn stored(message: &Message) -> pb::Message {
        let request = message.request.clone();
        pb::Message {
            conversation_id: request.conversation_id,
            seq: message.seq,
            sender_id: request.sender_id,
            client_message_id: request.client_message_id,
            body: request.body,
            reply_to_seq: request.reply_to_seq,
            attributes: request.attributes,
            ..Default::default()
        }
    }

    #[test]
    fn what_was_sent_is_equal_to_itself() {
        let conversation = conversation();
        let message = &conversation.messages[0];

        assert_eq!(Difference::find(&conversation, Some(message), Some(&stored(message))), None);
    }

    #[test]
    fn every_field_is_compared_and_named_with_its_place() {
        let conversation = conversation();
        let message = &conversation.messages[0];
        let alterations: [(&str, Alter); 7] = [
            ("message", |message| message.seq += 1),
            ("message", |message| message.sender_id.push('x')),
            ("message", |message| message.client_message_id.push('x')),
            ("conversation_id", |message| message.conversation_id.push('x')),
            ("reply_to_seq", |message| message.reply_to_seq = 7),
            ("attributes", |message| message.attributes.clear()),
            ("text", |message| message.body = None),
        ];
        for (field, alter) in alterations {
            let mut read = stored(message);
            alter(&mut read);

            let difference = Difference::find(&conversation, Some(message), Some(&read)).unwrap();

            assert_eq!(difference.field, field);
            assert!(difference.to_string().starts_with("conversation irc-a (a.log), line 1, seq 1: "), "{difference}");
        }
    }

    #[test]
    fn a_long_text_is_shown_where_it_differs() {
        let (one, other) = (format!("{}1", "x".repeat(999)), format!("{}2", "x".repeat(999)));

        assert_eq!(excerpt(&one, 999), format!("...\"{}1\"", "x".repeat(20)));
        assert_eq!(excerpt(&other, 0).len(), SHOWN + 5);
        assert_eq!(excerpt("a\nb", 2), r#""a\nb""#);
    }
}
