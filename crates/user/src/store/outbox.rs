//! `cache_outbox`: users whose cached profile may be older than their row.
//!
//! Rows are read without locks: several instances may relay one row at once, and applying a profile as it is now is safe
//! however often it is done. Ids become visible out of order, so nobody remembers "the last id seen".

use std::time::Duration;

use tidings_postgres::{Fault, Postgres};

use crate::model::UserId;

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
    /// Whose profile.
    pub user: UserId,
    /// How long it has waited.
    pub age: Duration,
}

impl Outbox {
    pub(super) fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// The oldest rows, at most `limit`.
    pub async fn pending(&self, limit: usize) -> Result<Vec<Pending>, Fault> {
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
            Pending { id: row.id, user: UserId::new(row.user_id), age }
        });
        Ok(pending.collect())
    }

    /// Deletes rows whose profile the cache has now. Does not wait for the disk: rows that a crash of Postgres brings back are
    /// applied again, which changes nothing.
    pub async fn done(&self, ids: &[i64]) -> Result<(), Fault> {
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
