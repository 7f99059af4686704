//! `outbox`: ranges of messages that the tails may not have.
//!
//! Rows are read without locks: several instances may relay one row at once, and telling a tail what it has is harmless.
//! Ids become visible out of order, so nobody remembers "the last id seen".

use tidings_postgres::{Fault, Postgres};

use crate::model::ConversationId;

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
    /// The first of them.
    pub first_seq: i64,
    /// The last of them.
    pub last_seq: i64,
}

impl Outbox {
    pub(super) fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// The oldest rows, at most `limit`. Their conversations are looked up one by one: a join would read all there are.
    pub async fn pending(&self, limit: i64) -> Result<Vec<Pending>, Fault> {
        let rows = self
            .postgres
            .run_background(async |connection| {
                sqlx::query!(
                    r#"
                    SELECT id,
                           (SELECT conversation.id FROM conversation WHERE no = conversation_no) AS "conversation!",
                           first_seq,
                           last_seq
                    FROM outbox
                    ORDER BY id
                    LIMIT $1
                    "#,
                    limit,
                )
                .fetch_all(connection)
                .await
            })
            .await?;
        let pending = rows.into_iter().map(|row| Pending {
            id: row.id,
            conversation: ConversationId::new(row.conversation),
            first_seq: row.first_seq,
            last_seq: row.last_seq,
        });
        Ok(pending.collect())
    }

    /// Deletes rows whose messages the tails have now.
    pub async fn done(&self, ids: &[i64]) -> Result<(), Fault> {
        self.postgres
            .run_background(async |connection| {
                sqlx::query!(
                    r#"
                    DELETE FROM outbox
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
}
