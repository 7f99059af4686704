//! `outbox`: ranges of messages that the tails, or broadcast, may not have.
//!
//! Rows are read without locks: two instances may relay one row at once, and telling somebody what it has is harmless. Ids
//! become visible out of order, but those of one conversation in order, because they are given under its row lock; so
//! nobody remembers "the last id seen".

use std::time::Duration;

use tidings_postgres::{Fault, Postgres};
use tidings_trace::TraceParent;

use crate::model::{ConversationId, ConversationNo, Shard};

/// Rows that are counted: to count more would cost more than to know.
const COUNTED: i64 = 100_000;

/// The outbox.
#[derive(Clone, Debug)]
pub struct Outbox {
    postgres: Postgres,
}

/// One row.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The row.
    pub id: i64,
    /// Whose messages.
    pub conversation: ConversationId,
    /// The same, as Postgres knows it.
    pub no: ConversationNo,
    /// The first of them.
    pub first_seq: i64,
    /// The last of them.
    pub last_seq: i64,
    /// Whether broadcast has them.
    pub published: bool,
    /// The call that appended them, if it was part of a trace.
    pub cause: Option<TraceParent>,
}

/// How much there is to relay.
#[derive(Clone, Copy, Debug)]
pub struct Backlog {
    /// Rows that wait, at most 100,000 are counted.
    pub rows: i64,
    /// How long the oldest has waited.
    pub age: Duration,
    /// Rows that were given up.
    pub parked: i64,
}

impl Outbox {
    pub(super) fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// The oldest rows of each of some shards, at most `limit` of each, so that none starves another; those of a shard in
    /// order. Conversations are looked up one by one: a join would read all there are.
    pub async fn pending(&self, shards: &[Shard], limit: i64) -> Result<Vec<Pending>, Fault> {
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
                           row.trace_parent
                    FROM UNNEST($1::smallint[]) AS asked (shard),
                         LATERAL (
                             SELECT id,
                                    conversation_no,
                                    first_seq,
                                    last_seq,
                                    published,
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
        let pending = rows.into_iter().map(|row| Pending {
            id: row.id,
            conversation: ConversationId::new(row.conversation),
            no: ConversationNo::new(row.conversation_no),
            first_seq: row.first_seq,
            last_seq: row.last_seq,
            published: row.published,
            cause: row.trace_parent.and_then(|text| TraceParent::parse(&text)),
        });
        Ok(pending.collect())
    }

    /// Deletes rows whose messages everybody has. Does not wait for the disk: rows that a crash of Postgres brings back are
    /// relayed again, and recognised.
    pub async fn done(&self, ids: &[i64]) -> Result<(), Fault> {
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

    /// Remembers that broadcast has the messages of these rows, and only a tail has not.
    pub async fn published(&self, ids: &[i64]) -> Result<(), Fault> {
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

    /// Notes that broadcast refused a row; after so many refusals it is parked. Returns whether it is.
    pub async fn refused(&self, id: i64, error: &str, park_after: i32) -> Result<bool, Fault> {
        let parked = self
            .postgres
            .run_background(async |connection| {
                sqlx::query_scalar!(
                    r#"
                    UPDATE outbox
                    SET attempts = attempts + 1,
                        error = $2,
                        park_time = CASE WHEN attempts + 1 >= $3 THEN now() END
                    WHERE id = $1
                    RETURNING park_time IS NOT NULL AS "parked!"
                    "#,
                    id,
                    error,
                    park_after,
                )
                .fetch_optional(connection)
                .await
            })
            .await?;
        Ok(parked.unwrap_or(false))
    }

    /// How much there is to relay, in all shards.
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
