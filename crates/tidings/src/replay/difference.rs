//! Differences between the messages and users sent and those read back.

use std::fmt;

use tidings_proto::history::{self as pb, body};

use super::clients::Error;
use super::plan::{PlannedConversation, PlannedMessage};

/// Maximum characters of a text in an excerpt.
const EXCERPT_MAX: usize = 160;

/// One difference, with its location and the phase of the replay that found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    location: String,
    field: &'static str,
    expected: String,
    read: String,
    phase: &'static str,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { location, field, expected, read, phase } = self;
        write!(f, "{location}: {field}, {phase}\n  expected: {expected}\n  read:     {read}")
    }
}

impl Difference {
    fn new(location: String, field: &'static str, expected: String, read: String) -> Self {
        Self { location, field, expected, read, phase: "" }
    }

    /// Sets the phase that found the difference, e.g. `read forwards`.
    #[must_use]
    pub(super) fn in_phase(self, phase: &'static str) -> Self {
        Self { phase, ..self }
    }

    /// Creates a difference in a user.
    pub(super) fn user(id: &str, field: &'static str, expected: &str, read: &str) -> Self {
        Self::new(format!("user {id}"), field, expected.to_owned(), read.to_owned())
    }

    /// Creates a difference in a conversation.
    pub(super) fn conversation(
        conversation: &PlannedConversation,
        field: &'static str,
        expected: impl fmt::Display,
        read: impl fmt::Display,
    ) -> Self {
        let location = format!("conversation {} ({})", conversation.id, conversation.path.display());
        Self::new(location, field, expected.to_string(), read.to_string())
    }

    /// Creates a difference from a refused message; `None` if the error does not concern stored
    /// data.
    pub(super) fn refused(conversation: &PlannedConversation, message: &PlannedMessage, error: &Error) -> Option<Self> {
        let failure = error.precondition_failure()?;
        Some(Self::new(location(conversation, message), "message", brief(message), failure.to_string()))
    }

    /// Finds the first field in which `read` differs from `expected`. `None` on either side means
    /// the end of the messages.
    pub(super) fn find(
        conversation: &PlannedConversation,
        expected: Option<&PlannedMessage>,
        read: Option<&pb::Message>,
    ) -> Option<Self> {
        let (field, expected_value, read_value) = match (expected, read) {
            (None, None) => return None,
            (Some(expected), None) => ("message", brief(expected), "no further message".to_owned()),
            (None, Some(read)) => {
                let read = format!("seq {} {} of {}", read.seq, read.client_message_id, read.sender_id);
                return Some(Self::conversation(conversation, "message", "no further message", read));
            }
            (Some(expected), Some(read)) => differing_field(expected, read)?,
        };
        let location = expected.map(|message| location(conversation, message)).unwrap_or_default();
        Some(Self::new(location, field, expected_value, read_value))
    }
}

fn location(conversation: &PlannedConversation, message: &PlannedMessage) -> String {
    let PlannedConversation { id, path, .. } = conversation;
    format!("conversation {id} ({}), line {}, seq {}", path.display(), message.line, message.seq)
}

fn brief(message: &PlannedMessage) -> String {
    format!("{} of {}", message.request.client_message_id, message.request.sender_id)
}

fn differing_field(expected: &PlannedMessage, read: &pb::Message) -> Option<(&'static str, String, String)> {
    let PlannedMessage { seq, request, .. } = expected;
    let text = |body: &Option<pb::Body>| match body.as_ref().and_then(|body| body.content.as_ref()) {
        Some(body::Content::Text(text)) => Some(text.clone()),
        _ => None,
    };
    let identity = |seq: i64, id: &str, sender: &str| format!("seq {seq}, {id} of {sender}");
    if (*seq, &request.client_message_id, &request.sender_id) != (read.seq, &read.client_message_id, &read.sender_id) {
        let expected = identity(*seq, &request.client_message_id, &request.sender_id);
        return Some(("message", expected, identity(read.seq, &read.client_message_id, &read.sender_id)));
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

/// Quotes a text around its `at`th character, at most [`EXCERPT_MAX`] characters.
fn excerpt(text: &str, at: usize) -> String {
    const CONTEXT_BEFORE: usize = 20;
    let skipped = if text.chars().nth(EXCERPT_MAX).is_some() { at.saturating_sub(CONTEXT_BEFORE) } else { 0 };
    let part: String = text.chars().skip(skipped).take(EXCERPT_MAX).collect();
    let more = text.chars().nth(skipped + EXCERPT_MAX).is_some();
    format!("{}{part:?}{}", if skipped > 0 { "..." } else { "" }, if more { "..." } else { "" })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::replay::files::LogFile;
    use crate::replay::plan::ReplayPlan;
    use crate::replay::{log, replies};

    type Alter = fn(&mut pb::Message);

    fn conversation() -> PlannedConversation {
        let mut plan = ReplayPlan::default();
        let file = LogFile { path: PathBuf::from("a.log"), id: "irc-a".into(), title: "a.log".into() };
        plan.add(file, log::parse(b"=== in\n[12:59] <Ada> hi\n"), &replies::parse(b""));
        plan.conversations.remove(0)
    }

    fn stored(message: &PlannedMessage) -> pb::Message {
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
    fn a_message_equals_itself_as_stored() {
        let conversation = conversation();
        let message = &conversation.messages[0];

        assert_eq!(Difference::find(&conversation, Some(message), Some(&stored(message))), None);
    }

    #[test]
    fn a_difference_in_any_field_is_found_with_its_location() {
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
    fn a_long_text_is_quoted_around_its_difference() {
        let (one, other) = (format!("{}1", "x".repeat(999)), format!("{}2", "x".repeat(999)));

        assert_eq!(excerpt(&one, 999), format!("...\"{}1\"", "x".repeat(20)));
        assert_eq!(excerpt(&other, 0).len(), EXCERPT_MAX + 5);
        assert_eq!(excerpt("a\nb", 2), r#""a\nb""#);
    }
}
