//! `cache_outbox`: users whose cached profile may be older than their row.
//!
//! Rows are read without locks: several instances may relay one row at the same time, because
//! applying the current profile is idempotent. Ids become visible out of order, so there is no
//! cursor of the last id read.

use std::time::Duration;

use tidings_postgres::{Fault, Postgres};

use crate::model::UserId;

/// The table `cache_outbox`.
#[derive(Clone, Debug)]
pub struct Outbox {
    postgres: Postgres,
}

/// A row of `cache_outbox`.
#[derive(Clone, Debug)]
pub struct CacheOutboxRow {
    /// Id of the row.
    pub id: i64,
    /// Id of the user.
    pub user: UserId,
    /// Time since the row was inserted.
    pub age: Duration,
}

impl Outbox {
    pub(super) fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// Returns the oldest rows, at most `limit`.
    pub async fn pending(&self, limit: usize) -> Result<Vec<CacheOutboxRow>, Fault> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self
            .postgres
            .run_background(async |connection| {
                sqlx::query!(
                    r#"
                    SELECT id,
                           user_id,
                           (extract(epoch FROM clock_timestamp() - create_time) * 1000)::bigint AS "age!"
                    FROM cache_outbox
                    ORDER BY id
                    LIMIT $1
                    "#,
                    limit,
                )
                .fetch_all(connection)
                .await
            })
            .await?;
        let pending = rows.into_iter().map(|row| {
            let age = Duration::from_millis(row.age.try_into().unwrap_or(0));
            CacheOutboxRow { id: row.id, user: UserId::new(row.user_id), age }
        });
        Ok(pending.collect())
    }

    /// Deletes relayed rows. Does not wait for the disk: rows that reappear after a crash of
    /// Postgres are applied again, which changes nothing.
    pub async fn delete(&self, ids: &[i64]) -> Result<(), Fault> {
        self.postgres
            .run_background(async |connection| {
                sqlx::query!(
                    r#"
                    WITH relaxed AS MATERIALIZED (
                        SELECT set_config('synchronous_commit', 'off', true)
                    )
                    DELETE FROM cache_outbox
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
}
