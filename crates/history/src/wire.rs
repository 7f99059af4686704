//! Conversion between domain types and contract messages, with validation of requests.

mod append;
mod conversation;
mod list;

use std::time::SystemTime;

use tidings_proto::history as pb;
use uuid::Uuid;

pub use append::{append, appended, batch_append, batch_appended, batch_refused};
pub use conversation::{conversation, create, created, get as get_conversation};
pub use list::{ListMessagesQuery, ListUserMessagesQuery, authored_page, get, list, list_authored, page};

use crate::model::{Body, ConversationId, Message, MessageState, ReadSource, UserId};

/// `ErrorInfo` domain of the reasons of this service.
pub const DOMAIN: &str = "history.tidings";

/// Converts a message to the contract.
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
            MessageState::Active => pb::message::State::Active.into(),
            MessageState::Recalled => pb::message::State::Recalled.into(),
        },
        edit_version: message.edit_version,
        change_seq: message.change_seq,
        create_time: Some(message.create_time.into()),
        last_change: None,
    }
}

/// Converts a message read from a tail; `None` if it is not one that this service would store.
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
            pb::message::State::Active => MessageState::Active,
            pb::message::State::Recalled => MessageState::Recalled,
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

/// Builds the `ReadInfo` of a read. The age of a tail is unknown, so it is unset.
pub fn read_info(source: ReadSource, stale: bool) -> pb::ReadInfo {
    let (source, age) = match source {
        ReadSource::Redis => (pb::read_info::Source::Redis, None),
        ReadSource::Postgres => (pb::read_info::Source::Postgres, Some(prost_types::Duration::default())),
    };
    pb::ReadInfo { source: source.into(), age, stale }
}
