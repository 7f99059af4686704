//! `message`: reading pages of it. How it is written stands in `append`.

mod append;

use std::collections::BTreeMap;
use std::time::SystemTime;

use sqlx::PgConnection;
use sqlx::types::Json;
use tidings_postgres::{Fault, Postgres};
use time::OffsetDateTime;

pub use append::{ConversationRow, Found, Key, Numbered, Verdict};

use super::row::Row;
use crate::model::{Appended, AuthoredCursor, ConversationId, ConversationNo, Message, NewMessage, UserId};

/// The messages.
#[derive(Clone, Debug)]
pub struct Messages {
    postgres: Postgres,
}

/// Messages in ascending order without a hole, with the number of the conversation's newest when they were read.
type Known = (i64, Vec<Message>);

impl Messages {
    pub(super) fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// Appends messages to any conversations in one transaction, as `decide` says of what is found under their locks.
    pub async fn append(
        &self,
        messages: &[NewMessage],
        decide: fn(&[NewMessage], &Found) -> Vec<Verdict>,
    ) -> Result<Vec<Appended>, Fault> {
        self.postgres.run(async |connection| append::append(connection, messages, decide).await).await
    }

    /// One message, and the number of the newest; `None`: no conversation.
    pub async fn read(&self, id: &ConversationId, seq: i64) -> Result<Option<(i64, Option<Message>)>, Fault> {
        let found = self.before(id, seq.saturating_add(1), 1).await?;
        Ok(found.map(|(last_seq, messages)| (last_seq, messages.into_iter().find(|message| message.seq == seq))))
    }

    /// The last `limit` messages before a number; `None`: no conversation.
    pub async fn before(&self, id: &ConversationId, seq: i64, limit: usize) -> Result<Option<Known>, Fault> {
        self.postgres
            .run(async |connection| {
                let Some((no, last_seq)) = head(connection, id).await? else {
                    return Ok(None);
                };
                let mut rows = rows_before(connection, no, seq.min(last_seq.saturating_add(1)), limit).await?;
                rows.reverse();
                Ok(Some((last_seq, rows.into_iter().map(Message::from).collect())))
            })
            .await
    }

    /// The first `limit` messages after a number; `None`: no conversation.
    pub async fn after(&self, id: &ConversationId, seq: i64, limit: usize) -> Result<Option<Known>, Fault> {
        self.postgres
            .run(async |connection| {
                let Some((no, last_seq)) = head(connection, id).await? else {
                    return Ok(None);
                };
                let rows = rows_between(connection, no, seq.saturating_add(1), last_seq, limit).await?;
                Ok(Some((last_seq, rows.into_iter().map(Message::from).collect())))
            })
            .await
    }

    /// The messages from one number to another, at most 100, on the connections for background work.
    pub async fn range_for_relay(&self, id: &ConversationId, first: i64, last: i64) -> Result<Vec<Message>, Fault> {
        self.postgres
            .run_background(async |connection| {
                let Some((no, _)) = head(connection, id).await? else {
                    return Ok(Vec::new());
                };
                let rows = rows_between(connection, no, first, last, 100).await?;
                Ok(rows.into_iter().map(Message::from).collect())
            })
            .await
    }

    /// Messages that a user sent, newest first, each with its place.
    pub async fn authored(
        &self,
        user: &UserId,
        after: Option<AuthoredCursor>,
        limit: usize,
    ) -> Result<Vec<(Message, AuthoredCursor)>, Fault> {
        let after = after.unwrap_or(AuthoredCursor { micros: i64::MAX, conversation: ConversationNo::new(0), seq: 0 });
        let time = moment(after.micros);
        self.postgres
            .run(async |connection| {
                let rows = sqlx::query_as!(
                    Row,
                    r#"
                    SELECT conversation_no,
                           conversation.id AS conversation_id,
                           seq,
                           message.id,
                           sender_id,
                           client_message_id,
                           body_text,
                           body_data,
                           content_type,
                           reply_to_seq,
                           message.attributes AS "attributes: Json<BTreeMap<String, String>>",
                           state,
                           edit_version,
                           change_seq,
                           message.create_time
                    FROM message
                    JOIN conversation ON conversation.no = conversation_no
                    WHERE sender_id = $1
                      AND (message.create_time, conversation_no, seq) < ($2, $3, $4)
                    ORDER BY message.create_time DESC, conversation_no DESC, seq DESC
                    LIMIT $5
                    "#,
                    user.as_str(),
                    time,
                    after.conversation.get(),
                    after.seq,
                    i64::try_from(limit).unwrap_or(i64::MAX),
                )
                .fetch_all(connection)
                .await?;
                let messages = rows.into_iter().map(|row| {
                    let cursor = AuthoredCursor {
                        micros: micros(row.create_time),
                        conversation: ConversationNo::new(row.conversation_no),
                        seq: row.seq,
                    };
                    (Message::from(row), cursor)
                });
                Ok(messages.collect())
            })
            .await
    }
}

/// The number of a conversation's rows, and of its newest message.
async fn head(connection: &mut PgConnection, id: &ConversationId) -> Result<Option<(i64, i64)>, sqlx::Error> {
    let row = sqlx::query!(
        r#"
        SELECT no,
               last_seq
        FROM conversation
        WHERE id = $1
        "#,
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| (row.no, row.last_seq)))
}

/// In descending order.
async fn rows_before(
    connection: &mut PgConnection,
    no: i64,
    before: i64,
    limit: usize,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"
        SELECT conversation_no,
               conversation.id AS conversation_id,
               seq,
               message.id,
               sender_id,
               client_message_id,
               body_text,
               body_data,
               content_type,
               reply_to_seq,
               message.attributes AS "attributes: Json<BTreeMap<String, String>>",
               state,
               edit_version,
               change_seq,
               message.create_time
        FROM message
        JOIN conversation ON conversation.no = conversation_no
        WHERE conversation_no = $1
          AND seq < $2
        ORDER BY seq DESC
        LIMIT $3
        "#,
        no,
        before,
        i64::try_from(limit).unwrap_or(i64::MAX),
    )
    .fetch_all(connection)
    .await
}

/// In ascending order.
async fn rows_between(
    connection: &mut PgConnection,
    no: i64,
    first: i64,
    last: i64,
    limit: usize,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"
        SELECT conversation_no,
               conversation.id AS conversation_id,
               seq,
               message.id,
               sender_id,
               client_message_id,
               body_text,
               body_data,
               content_type,
               reply_to_seq,
               message.attributes AS "attributes: Json<BTreeMap<String, String>>",
               state,
               edit_version,
               change_seq,
               message.create_time
        FROM message
        JOIN conversation ON conversation.no = conversation_no
        WHERE conversation_no = $1
          AND seq BETWEEN $2 AND $3
        ORDER BY seq
        LIMIT $4
        "#,
        no,
        first,
        last,
        i64::try_from(limit).unwrap_or(i64::MAX),
    )
    .fetch_all(connection)
    .await
}

/// A time of a cursor; one that no clock shows is the end of time.
fn moment(micros: i64) -> OffsetDateTime {
    const END: OffsetDateTime = time::macros::datetime!(9999-12-31 23:59:59 UTC);
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).unwrap_or(END)
}

fn micros(time: OffsetDateTime) -> i64 {
    let since = SystemTime::from(time).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
