//! Append of one message in one statement, the common case.
//!
//! The statement first increments the conversation's `last_seq`, which takes the row lock. The seq
//! is therefore the newest one even if the statement waited for other appends. The message and the
//! outbox row derive from the updated row, so they are inserted under the lock. A taken key
//! violates the unique constraint, which rolls everything back. In that case, or if the
//! conversation or the reply target does not exist, the transaction in `append` decides the
//! outcome.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use sqlx::types::Json;
use tidings_trace::TraceParent;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::model::{AppendOutcome, AppendRequest, Body, ConversationNo, Message, MessageState};

/// Appends a new message; `None` if the conversation or the reply target does not exist.
///
/// A message's time is the clock of Postgres, or the time of the preceding message if that is
/// later.
///
/// # Errors
/// A unique violation if the key is taken.
pub(super) async fn append_one(
    connection: &mut PgConnection,
    message: &AppendRequest,
    trace_parent: Option<TraceParent>,
) -> Result<Option<AppendOutcome>, sqlx::Error> {
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
        trace_parent.map(|parent| parent.to_string()),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| AppendOutcome::Done {
        message: committed(message, row.seq, Some(id), Some(row.time)),
        shard: ConversationNo::new(row.no).shard(),
        deduplicated: false,
    }))
}

/// Builds the message that was committed for a request.
pub(super) fn committed(new: &AppendRequest, seq: i64, id: Option<Uuid>, time: Option<OffsetDateTime>) -> Message {
    Message {
        conversation: new.conversation.clone(),
        seq,
        id: id.unwrap_or_default(),
        sender: new.sender.clone(),
        client_message_id: new.client_message_id.clone(),
        body: new.body.clone(),
        reply_to_seq: new.reply_to_seq,
        attributes: new.attributes.clone(),
        state: MessageState::Active,
        edit_version: 1,
        change_seq: 0,
        create_time: time.unwrap_or(OffsetDateTime::UNIX_EPOCH).into(),
    }
}
