//! Table `outbox`: ranges of messages that a tail or broadcast may not have.
//!
//! Rows are read without locks. Two instances may relay the same row at once, which is harmless,
//! because duplicates are recognised. Ids become visible out of order, except those of one
//! conversation, which are assigned under its row lock. No reader may therefore rely on a "last
//! seen id".

use std::time::Duration;

use tidings_postgres::{Fault, Postgres};
use tidings_trace::TraceParent;
use uuid::Uuid;

use crate::model::{ConversationId, ConversationNo, Shard};

/// Maximum number of rows that are counted: an exact count of more is not worth its cost.
const COUNTED: i64 = 100_000;

/// Access to the table `outbox`.
#[derive(Clone, Debug)]
pub struct Outbox {
    postgres: Postgres,
}

/// One row: a range of messages of one conversation that are to be relayed.
#[derive(Clone, Debug)]
pub struct PendingRange {
    /// Primary key of the row.
    pub id: i64,
    /// Conversation of the messages.
    pub conversation: ConversationId,
    /// Number of that conversation.
    pub no: ConversationNo,
    /// Seq of the first message.
    pub first_seq: i64,
    /// Seq of the last message.
    pub last_seq: i64,
    /// True if broadcast has the messages and only the tail may lack them.
    pub published: bool,
    /// Random part of the request ids under which the messages are published.
    pub publish_key: Uuid,
    /// Trace context of the append, if it had one.
    pub trace_parent: Option<TraceParent>,
}

/// Size and age of the outbox, over all shards.
#[derive(Clone, Copy, Debug)]
pub struct Backlog {
    /// Number of rows to relay; at most 100,000 are counted.
    pub rows: i64,
    /// Age of the oldest row to relay.
    pub age: Duration,
    /// Number of parked rows; at most 100,000 are counted.
    pub parked: i64,
}

impl Outbox {
    pub(super) fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// Reads the oldest rows of each shard in order of their ids, at most `limit` per shard, so
    /// that no shard starves another. A subquery looks up each conversation: a join would read all
    /// conversations.
    pub async fn pending(&self, shards: &[Shard], limit: i64) -> Result<Vec<PendingRange>, Fault> {
        let shards: Vec<i16> = shards.iter().map(|shard| shard.get()).collect();
        let rows = self
            .postgres
            .run_background(async |connection| {
                sqlx::query!(
                    r#"
                    SELECT row.id,
                           row.conversation_no,
                           (SELECT conversation.id FROM conversation WHERE no = row.conversation_no) AS "conversation!",
                           row.first_seq,
                           row.last_seq,
                           row.published,
                           row.publish_key,
                           row.trace_parent
                    FROM UNNEST($1::smallint[]) AS asked (shard),
                         LATERAL (
                             SELECT id,
                                    conversation_no,
                                    first_seq,
                                    last_seq,
                                    published,
                                    publish_key,
                                    trace_parent
                             FROM outbox
                             WHERE outbox.shard = asked.shard
                               AND park_time IS NULL
                             ORDER BY id
                             LIMIT $2
                         ) AS row
                    ORDER BY row.id
                    "#,
                    &shards,
                    limit,
                )
                .fetch_all(connection)
                .await
            })
            .await?;
        let pending = rows.into_iter().map(|row| PendingRange {
            id: row.id,
            conversation: ConversationId::new(row.conversation),
            no: ConversationNo::new(row.conversation_no),
            first_seq: row.first_seq,
            last_seq: row.last_seq,
            published: row.published,
            publish_key: row.publish_key,
            trace_parent: row.trace_parent.and_then(|text| TraceParent::parse(&text)),
        });
        Ok(pending.collect())
    }

    /// Deletes rows whose messages the tails and broadcast have.
    ///
    /// Commits asynchronously. A crash of Postgres may restore deleted rows; they are relayed
    /// again, and their messages are recognised as duplicates.
    pub async fn delete(&self, ids: &[i64]) -> Result<(), Fault> {
        self.postgres
            .run_background(async |connection| {
                sqlx::query!(
                    r#"
                    WITH relaxed AS MATERIALIZED (
                        SELECT set_config('synchronous_commit', 'off', true)
                    )
                    DELETE FROM outbox
                    USING relaxed
                    WHERE id = ANY($1)
                    "#,
                    ids,
                )
                .execute(connection)
                .await
            })
            .await?;
        Ok(())
    }

    /// Marks rows whose messages broadcast has and only a tail lacks.
    pub async fn mark_published(&self, ids: &[i64]) -> Result<(), Fault> {
        self.postgres
            .run_background(async |connection| {
                sqlx::query!(
                    r#"
                    UPDATE outbox
                    SET published = true
                    WHERE id = ANY($1)
                    "#,
                    ids,
                )
                .execute(connection)
                .await
            })
            .await?;
        Ok(())
    }

    /// Records a refusal of a row by broadcast, and parks the row after `park_after` of them. The
    /// row gets another publish key if `key_taken`. Returns true if the row is parked.
    pub async fn record_refusal(&self, id: i64, error: &str, key_taken: bool, park_after: i32) -> Result<bool, Fault> {
        let parked = self
            .postgres
            .run_background(async |connection| {
                sqlx::query_scalar!(
                    r#"
                    UPDATE outbox
                    SET attempts = attempts + 1,
                        error = $2,
                        publish_key = CASE WHEN $3 THEN gen_random_uuid() ELSE publish_key END,
                        park_time = CASE WHEN attempts + 1 >= $4 THEN now() END
                    WHERE id = $1
                    RETURNING park_time IS NOT NULL AS "parked!"
                    "#,
                    id,
                    error,
                    key_taken,
                    park_after,
                )
                .fetch_optional(connection)
                .await
            })
            .await?;
        Ok(parked.unwrap_or(false))
    }

    /// Measures size and age of the outbox, over all shards.
    pub async fn backlog(&self) -> Result<Backlog, Fault> {
        let row = self
            .postgres
            .run_background(async |connection| {
                sqlx::query!(
                    r#"
                    SELECT (
                               SELECT count(*)
                               FROM (SELECT 1 FROM outbox WHERE park_time IS NULL LIMIT $1) AS waiting
                           ) AS "rows!",
                           (
                               SELECT (extract(epoch FROM clock_timestamp() - create_time) * 1000)::bigint
                               FROM outbox
                               WHERE park_time IS NULL
                               ORDER BY id
                               LIMIT 1
                           ) AS age,
                           (
                               SELECT count(*)
                               FROM (SELECT 1 FROM outbox WHERE park_time IS NOT NULL LIMIT $1) AS parked
                           ) AS "parked!"
                    "#,
                    COUNTED,
                )
                .fetch_one(connection)
                .await
            })
            .await?;
        let age = Duration::from_millis(row.age.unwrap_or(0).try_into().unwrap_or(0));
        Ok(Backlog { rows: row.rows, age, parked: row.parked })
    }
}
