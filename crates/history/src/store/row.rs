//! A row of `message`, and the numbers that encode enums in Postgres.

use std::collections::BTreeMap;

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::model::{Body, ConversationId, ConversationKind, Message, MessageState, UserId};

/// Encodes a kind with the number that the contract gives it.
pub(super) fn kind_code(kind: ConversationKind) -> i16 {
    match kind {
        ConversationKind::Open => 3,
    }
}

/// Decodes a state from the number that the contract gives it.
fn state(code: i16) -> MessageState {
    if code == 2 { MessageState::Recalled } else { MessageState::Active }
}

/// Value of the column `attributes`.
pub(super) type Attributes = Json<BTreeMap<String, String>>;

/// A row of `message`, with the id of its conversation.
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
    pub(super) attributes: Attributes,
    pub(super) state: i16,
    pub(super) edit_version: i32,
    pub(super) change_seq: i64,
    pub(super) create_time: OffsetDateTime,
}

/// A query that returns [`Row`]s, checked at compile time.
///
/// Inserts the list of columns before `$from`, whose tables or subqueries have the names `message`
/// and `conversation`: `query_rows!("FROM message JOIN conversation ... WHERE seq = $1", seq)`.
macro_rules! query_rows {
    ($from:literal, $($args:tt)*) => {
        sqlx::query_as!(
            $crate::store::row::Row,
            r#"
            SELECT message.conversation_no,
                   conversation.id AS conversation_id,
                   message.seq,
                   message.id,
                   message.sender_id,
                   message.client_message_id,
                   message.body_text,
                   message.body_data,
                   message.content_type,
                   message.reply_to_seq,
                   message.attributes AS "attributes: crate::store::row::Attributes",
                   message.state,
                   message.edit_version,
                   message.change_seq,
                   message.create_time
            "# + $from,
            $($args)*
        )
    };
}

pub(super) use query_rows;

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
