//! A row of `message` as it is read, and the small numbers that stand for words in Postgres.

use std::collections::BTreeMap;

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::model::{Body, ConversationId, Kind, Message, State, UserId};

/// The numbers of the contract.
pub(super) fn kind_code(kind: Kind) -> i16 {
    match kind {
        Kind::Open => 3,
    }
}

fn state(code: i16) -> State {
    if code == 2 { State::Recalled } else { State::Active }
}

/// A message as it is read.
pub(super) struct Row {
    pub(super) conversation_no: i64,
    pub(super) conversation_id: String,
    pub(super) seq: i64,
    pub(super) id: Uuid,
    pub(super) sender_id: String,
    pub(super) client_message_id: String,
    pub(super) body_text: Option<String>,
    pub(super) body_data: Option<Vec<u8>>,
    pub(super) content_type: Option<String>,
    pub(super) reply_to_seq: i64,
    pub(super) attributes: Json<BTreeMap<String, String>>,
    pub(super) state: i16,
    pub(super) edit_version: i32,
    pub(super) change_seq: i64,
    pub(super) create_time: OffsetDateTime,
}

impl From<Row> for Message {
    fn from(row: Row) -> Self {
        let body = match (row.body_text, row.body_data) {
            (None, Some(data)) => {
                Body::Binary { data: data.into(), content_type: row.content_type.unwrap_or_default() }
            }
            (text, _) => Body::Text(text.unwrap_or_default()),
        };
        Self {
            conversation: ConversationId::new(row.conversation_id),
            seq: row.seq,
            id: row.id,
            sender: UserId::new(row.sender_id),
            client_message_id: row.client_message_id,
            body,
            reply_to_seq: row.reply_to_seq,
            attributes: row.attributes.0,
            state: state(row.state),
            edit_version: row.edit_version,
            change_seq: row.change_seq,
            create_time: row.create_time.into(),
        }
    }
}
