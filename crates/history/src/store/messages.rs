//! Table `message`: reads. The writes are in `append` and `append_one`.

mod append;
mod append_one;

use std::time::SystemTime;

use sqlx::PgConnection;
use tidings_postgres::{Fault, Postgres};
use tidings_trace::TraceParent;
use time::OffsetDateTime;

pub use append::{AppendDecision, AssignedSeq, ConversationRow, LockedState, MessageKey, StoredMessage};

use super::row::{Row, query_rows};
use crate::model::{
    AppendOutcome, AppendRequest, AuthoredCursor, ConversationId, ConversationNo, Message, MessageSlice, UserId,
};

/// Access to the table `message`.
#[derive(Clone, Debug)]
pub struct Messages {
    postgres: Postgres,
}

/// A contiguous range of messages of one conversation.
#[derive(Clone, Copy, Debug)]
pub struct SeqRange {
    /// Number of the conversation.
    pub no: ConversationNo,
    /// Seq of the first message.
    pub first_seq: i64,
    /// Seq of the last message.
    pub last_seq: i64,
}

impl Messages {
    pub(super) fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// Appends messages to any conversations in one transaction. `decide` gets the state that was
    /// read under the locks and decides the outcome of each message. The relay publishes them in
    /// the trace of `trace_parent`.
    pub async fn append(
        &self,
        messages: &[AppendRequest],
        trace_parent: Option<TraceParent>,
        decide: fn(&[AppendRequest], &LockedState) -> Vec<AppendDecision>,
    ) -> Result<Vec<AppendOutcome>, Fault> {
        self.postgres.run(async |connection| append::append(connection, messages, trace_parent, decide).await).await
    }

    /// Appends one message in one statement. Returns `None`, with nothing done, if the statement
    /// cannot decide the outcome: the key is taken, the conversation is absent, or the reply target
    /// is absent.
    pub async fn append_one(
        &self,
        message: &AppendRequest,
        trace_parent: Option<TraceParent>,
    ) -> Result<Option<AppendOutcome>, Fault> {
        let appended =
            self.postgres.run(async |connection| append_one::append_one(connection, message, trace_parent).await).await;
        match appended {
            Err(Fault::Unique(_)) => Ok(None),
            appended => appended,
        }
    }

    /// Reads one message, if the conversation has it; `None` if the conversation does not exist.
    pub async fn read(&self, id: &ConversationId, seq: i64) -> Result<Option<MessageSlice>, Fault> {
        let mut found = self.before(id, seq.saturating_add(1), 1).await?;
        if let Some(slice) = &mut found {
            slice.messages.retain(|message| message.seq == seq);
        }
        Ok(found)
    }

    /// Reads the last `limit` messages before `seq`; `None` if the conversation does not exist.
    pub async fn before(&self, id: &ConversationId, seq: i64, limit: usize) -> Result<Option<MessageSlice>, Fault> {
        self.postgres
            .read(async |connection| {
                let Some((no, last_seq)) = head(connection, id).await? else {
                    return Ok(None);
                };
                let mut rows = rows_before(connection, no, seq.min(last_seq.saturating_add(1)), limit).await?;
                rows.reverse();
                Ok(Some(slice(rows, last_seq)))
            })
            .await
    }

    /// Reads the first `limit` messages after `seq`; `None` if the conversation does not exist.
    pub async fn after(&self, id: &ConversationId, seq: i64, limit: usize) -> Result<Option<MessageSlice>, Fault> {
        self.postgres
            .read(async |connection| {
                let Some((no, last_seq)) = head(connection, id).await? else {
                    return Ok(None);
                };
                let rows = rows_between(connection, no, seq.saturating_add(1), last_seq, limit).await?;
                Ok(Some(slice(rows, last_seq)))
            })
            .await
    }

    /// Reads the messages of ranges of at most 100 messages each, in their current version. Returns
    /// one list per range, in ascending order. Uses the connections for background work.
    pub async fn ranges_for_relay(&self, ranges: &[SeqRange]) -> Result<Vec<Vec<Message>>, Fault> {
        let conversation_nos: Vec<i64> = ranges.iter().map(|range| range.no.get()).collect();
        let first_seqs: Vec<i64> = ranges.iter().map(|range| range.first_seq).collect();
        let last_seqs: Vec<i64> = ranges.iter().map(|range| range.last_seq).collect();
        let rows = self
            .postgres
            .run_background(async |connection| {
                rows_of_ranges(connection, &conversation_nos, &first_seqs, &last_seqs).await
            })
            .await?;
        let mut rows = rows.into_iter().peekable();
        let belongs = |range: &SeqRange, row: &Row| {
            row.conversation_no == range.no.get() && (range.first_seq..=range.last_seq).contains(&row.seq)
        };
        Ok(ranges
            .iter()
            .map(|range| std::iter::from_fn(|| rows.next_if(|row| belongs(range, row))).map(Message::from).collect())
            .collect())
    }

    /// Reads messages that a user sent, newest first, each with its cursor.
    pub async fn authored(
        &self,
        user: &UserId,
        after: Option<AuthoredCursor>,
        limit: usize,
    ) -> Result<Vec<(Message, AuthoredCursor)>, Fault> {
        let after = after.unwrap_or(AuthoredCursor { micros: i64::MAX, conversation: ConversationNo::new(0), seq: 0 });
        let time = time_of_micros(after.micros);
        self.postgres
            .read(async |connection| {
                let rows = query_rows!(
                    "
                    FROM message
                    JOIN conversation ON conversation.no = conversation_no
                    WHERE sender_id = $1
                      AND (message.create_time, conversation_no, seq) < ($2, $3, $4)
                    ORDER BY message.create_time DESC, conversation_no DESC, seq DESC
                    LIMIT $5",
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

fn slice(rows: Vec<Row>, last_seq: i64) -> MessageSlice {
    MessageSlice { messages: rows.into_iter().map(Message::from).collect(), last_seq }
}

/// Reads the number of a conversation and its newest seq.
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

/// Reads the last `limit` rows before a seq, in descending order.
async fn rows_before(
    connection: &mut PgConnection,
    no: i64,
    before: i64,
    limit: usize,
) -> Result<Vec<Row>, sqlx::Error> {
    query_rows!(
        "
        FROM message
        JOIN conversation ON conversation.no = conversation_no
        WHERE conversation_no = $1
          AND seq < $2
        ORDER BY seq DESC
        LIMIT $3",
        no,
        before,
        i64::try_from(limit).unwrap_or(i64::MAX),
    )
    .fetch_all(connection)
    .await
}

/// Reads the first `limit` rows from `first` to `last`, in ascending order.
async fn rows_between(
    connection: &mut PgConnection,
    no: i64,
    first: i64,
    last: i64,
    limit: usize,
) -> Result<Vec<Row>, sqlx::Error> {
    query_rows!(
        "
        FROM message
        JOIN conversation ON conversation.no = conversation_no
        WHERE conversation_no = $1
          AND seq BETWEEN $2 AND $3
        ORDER BY seq
        LIMIT $4",
        no,
        first,
        last,
        i64::try_from(limit).unwrap_or(i64::MAX),
    )
    .fetch_all(connection)
    .await
}

/// Reads the rows of ranges, in the order of the ranges, then in ascending order.
///
/// The `LIMIT` in the lateral join makes Postgres read range by range. With one plain join it might
/// look up messages by their conversation alone and read whole conversations. `*` is no other list
/// of columns: the rows have those of [`query_rows`].
async fn rows_of_ranges(
    connection: &mut PgConnection,
    conversation_nos: &[i64],
    first_seqs: &[i64],
    last_seqs: &[i64],
) -> Result<Vec<Row>, sqlx::Error> {
    query_rows!(
        "
        FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[])
                 WITH ORDINALITY AS asked (no, first_seq, last_seq, place),
             LATERAL (
                 SELECT *
                 FROM message
                 WHERE conversation_no = asked.no
                   AND seq BETWEEN asked.first_seq AND asked.last_seq
                 ORDER BY seq
                 LIMIT 100
             ) AS message,
             LATERAL (
                 SELECT id
                 FROM conversation
                 WHERE no = message.conversation_no
                 LIMIT 1
             ) AS conversation
        ORDER BY asked.place, message.seq",
        conversation_nos,
        first_seqs,
        last_seqs,
    )
    .fetch_all(connection)
    .await
}

/// Converts the time of a cursor. A time out of range becomes the end of the year 9999.
fn time_of_micros(micros: i64) -> OffsetDateTime {
    const END: OffsetDateTime = time::macros::datetime!(9999-12-31 23:59:59 UTC);
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).unwrap_or(END)
}

fn micros(time: OffsetDateTime) -> i64 {
    let since = SystemTime::from(time).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
