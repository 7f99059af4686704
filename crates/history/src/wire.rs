//! Model <-> contract messages, both ways.

mod append;
mod conversation;
mod list;

use std::time::SystemTime;

use tidings_proto::history as pb;
use uuid::Uuid;

pub use append::{append, appended, batch_append, batch_appended, batch_refused};
pub use conversation::{conversation, create, get as get_conversation};
pub use list::{List, ListAuthored, authored_page, get, list, list_authored, page};

use crate::model::{Body, ConversationId, Message, Source, State, UserId};

/// Whose reasons our errors give.
pub const DOMAIN: &str = "history.tidings";

/// A message as the contract has it.
pub fn message(message: Message) -> pb::Message {
    let content = match message.body {
        Body::Text(text) => pb::body::Content::Text(text),
        Body::Binary { data, content_type } => pb::body::Content::Binary(pb::Binary { data, content_type }),
    };
    pb::Message {
        conversation_id: message.conversation.to_string(),
        seq: message.seq,
        id: message.id.to_string(),
        sender_id: message.sender.to_string(),
        client_message_id: message.client_message_id,
        body: Some(pb::Body { content: Some(content) }),
        reply_to_seq: message.reply_to_seq,
        attributes: message.attributes,
        state: match message.state {
            State::Active => pb::message::State::Active.into(),
            State::Recalled => pb::message::State::Recalled.into(),
        },
        edit_version: message.edit_version,
        change_seq: message.change_seq,
        create_time: Some(message.create_time.into()),
        last_change: None,
    }
}

/// A message as we stored it in a tail; `None` if it is not one that we store.
pub fn cached_message(message: pb::Message) -> Option<Message> {
    Some(Message {
        conversation: ConversationId::new(message.conversation_id),
        seq: message.seq,
        id: Uuid::parse_str(&message.id).ok()?,
        sender: UserId::new(message.sender_id),
        client_message_id: message.client_message_id,
        body: body(message.body)?,
        reply_to_seq: message.reply_to_seq,
        attributes: message.attributes,
        state: match pb::message::State::try_from(message.state).ok()? {
            pb::message::State::Active => State::Active,
            pb::message::State::Recalled => State::Recalled,
            pb::message::State::Unspecified => return None,
        },
        edit_version: message.edit_version,
        change_seq: message.change_seq,
        create_time: SystemTime::try_from(message.create_time?).ok()?,
    })
}

fn body(body: Option<pb::Body>) -> Option<Body> {
    Some(match body?.content? {
        pb::body::Content::Text(text) => Body::Text(text),
        pb::body::Content::Binary(pb::Binary { data, content_type }) => Body::Binary { data, content_type },
    })
}

/// Where an answer came from; how old a tail is, nobody knows.
pub fn read_info(source: Source, stale: bool) -> pb::ReadInfo {
    let (source, age) = match source {
        Source::Redis => (pb::read_info::Source::Redis, None),
        Source::Postgres => (pb::read_info::Source::Postgres, Some(prost_types::Duration::default())),
    };
    pb::ReadInfo { source: source.into(), age, stale }
}
