//! `message`: reading pages of it. How it is written stands in `append` and `append_one`.

mod append;
mod append_one;

use std::collections::BTreeMap;
use std::time::SystemTime;

use sqlx::PgConnection;
use sqlx::types::Json;
use tidings_postgres::{Fault, Postgres};
use tidings_trace::TraceParent;
use time::OffsetDateTime;

pub use append::{ConversationRow, Found, Key, Numbered, Verdict};

use super::row::Row;
use crate::model::{Appended, AuthoredCursor, ConversationId, ConversationNo, Message, NewMessage, UserId};

/// The messages.
#[derive(Clone, Debug)]
pub struct Messages {
    postgres: Postgres,
}

/// Messages of one conversation that follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// The conversation.
    pub no: ConversationNo,
    /// The first of them.
    pub first_seq: i64,
    /// The last of them.
    pub last_seq: i64,
}

/// Messages in ascending order without a hole, with the number of the conversation's newest when they were read.
type Known = (i64, Vec<Message>);

impl Messages {
    pub(super) fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// Appends messages to any conversations in one transaction, as `decide` says of what is found under their locks; they
    /// will be published in the trace of `cause`.
    pub async fn append(
        &self,
        messages: &[NewMessage],
        cause: Option<TraceParent>,
        decide: fn(&[NewMessage], &Found) -> Vec<Verdict>,
    ) -> Result<Vec<Appended>, Fault> {
        self.postgres.run(async |connection| append::append(connection, messages, cause, decide).await).await
    }

    /// Appends one message, if that is all there is to it: in one statement, which finds no key taken and everything there.
    /// `None` if not: then nothing was done.
    pub async fn append_one(
        &self,
        message: &NewMessage,
        cause: Option<TraceParent>,
    ) -> Result<Option<Appended>, Fault> {
        let appended =
            self.postgres.run(async |connection| append_one::append_one(connection, message, cause).await).await;
        match appended {
            Err(Fault::Unique(_)) => Ok(None),
            appended => appended,
        }
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

    /// The messages of some ranges, each of at most 100, as they are now; in the order of the ranges, and in each in
    /// ascending order. On the connections for background work.
    pub async fn ranges_for_relay(&self, ranges: &[Range]) -> Result<Vec<Vec<Message>>, Fault> {
        let numbers: Vec<i64> = ranges.iter().map(|range| range.no.get()).collect();
        let firsts: Vec<i64> = ranges.iter().map(|range| range.first_seq).collect();
        let lasts: Vec<i64> = ranges.iter().map(|range| range.last_seq).collect();
        let rows = self
            .postgres
            .run_background(async |connection| rows_of_ranges(connection, &numbers, &firsts, &lasts).await)
            .await?;
        let mut found = rows.into_iter().peekable();
        let belongs = |range: &Range, row: &Row| {
            row.conversation_no == range.no.get() && (range.first_seq..=range.last_seq).contains(&row.seq)
        };
        Ok(ranges
            .iter()
            .map(|range| std::iter::from_fn(|| found.next_if(|row| belongs(range, row))).map(Message::from).collect())
            .collect())
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

/// In the order of the ranges, then ascending. Range by range, which Postgres is made to do by the limit of each: read at
/// once, it might look a message up by its conversation alone.
async fn rows_of_ranges(
    connection: &mut PgConnection,
    numbers: &[i64],
    firsts: &[i64],
    lasts: &[i64],
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"
        SELECT found.conversation_no AS "conversation_no!",
               (SELECT conversation.id FROM conversation WHERE no = found.conversation_no) AS "conversation_id!",
               found.seq AS "seq!",
               found.id AS "id!",
               found.sender_id AS "sender_id!",
               found.client_message_id AS "client_message_id!",
               found.body_text,
               found.body_data,
               found.content_type,
               found.reply_to_seq AS "reply_to_seq!",
               found.attributes AS "attributes!: Json<BTreeMap<String, String>>",
               found.state AS "state!",
               found.edit_version AS "edit_version!",
               found.change_seq AS "change_seq!",
               found.create_time AS "create_time!"
        FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[])
                 WITH ORDINALITY AS asked (no, first_seq, last_seq, place),
             LATERAL (
                 SELECT conversation_no,
                        seq,
                        id,
                        sender_id,
                        client_message_id,
                        body_text,
                        body_data,
                        content_type,
                        reply_to_seq,
                        attributes,
                        state,
                        edit_version,
                        change_seq,
                        create_time
                 FROM message
                 WHERE conversation_no = asked.no
                   AND seq BETWEEN asked.first_seq AND asked.last_seq
                 ORDER BY seq
                 LIMIT 100
             ) AS found
        ORDER BY asked.place, found.seq
        "#,
        numbers,
        firsts,
        lasts,
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
