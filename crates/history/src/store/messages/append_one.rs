//! One message in one statement: what nearly every append is.
//!
//! It moves the conversation's number first, and with that takes its row's lock: the number that it gets is the newest one there
//! is, also if it waited for others. The message and the outbox's row follow from that row, so they are made under the lock. That
//! the key is taken it finds out by the unique constraint, and leaves nothing behind: then, and if there is no such conversation
//! or no message to be answered, the transaction in `append` says what is so.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use sqlx::types::Json;
use tidings_trace::TraceParent;
use uuid::Uuid;

use super::append::committed;
use crate::model::{Appended, Body, ConversationNo, NewMessage};

/// Appends a message that is new; `None` if it is not for this statement to say what becomes of it.
///
/// A message's time is the clock's, or that of the message before it if the clock has gone back.
///
/// # Errors
/// A unique constraint, if the key is taken.
pub(super) async fn append_one(
    connection: &mut PgConnection,
    message: &NewMessage,
    cause: Option<TraceParent>,
) -> Result<Option<Appended>, sqlx::Error> {
    let id = Uuid::now_v7();
    let (text, data, content_type) = match &message.body {
        Body::Text(text) => (Some(text.as_str()), None, None),
        Body::Binary { data, content_type } => (None, Some(&data[..]), Some(content_type.as_str())),
    };
    let row = sqlx::query!(
        r#"
        WITH moved AS (
            UPDATE conversation
            SET last_seq = last_seq + 1,
                last_time = GREATEST(last_time, statement_timestamp())
            WHERE id = $1
              AND last_seq >= $9
            RETURNING no, last_seq, last_time
        ), inserted AS (
            INSERT INTO message (
                conversation_no, seq, id, sender_id, client_message_id, fingerprint,
                body_text, body_data, content_type, reply_to_seq, attributes, create_time
            )
            SELECT no, last_seq, $2, $3, $4, $5, $6, $7, $8, $9, $10, last_time
            FROM moved
        ), news AS (
            INSERT INTO outbox (conversation_no, first_seq, last_seq, trace_parent)
            SELECT no, last_seq, last_seq, $11
            FROM moved
        )
        SELECT no AS "no!",
               last_seq AS "seq!",
               last_time AS "time!"
        FROM moved
        LIMIT 1
        "#,
        message.conversation.as_str(),
        id,
        message.sender.as_str(),
        message.client_message_id,
        &message.fingerprint[..],
        text,
        data,
        content_type,
        message.reply_to_seq,
        Json(&message.attributes) as Json<&BTreeMap<String, String>>,
        cause.map(|cause| cause.to_string()),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| Appended::Done {
        message: committed(message, row.seq, Some(id), Some(row.time)),
        shard: ConversationNo::new(row.no).shard(),
        deduplicated: false,
    }))
}
