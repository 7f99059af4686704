//! `relay_shard`, `relay_worker`: which instance relays which part of the outbox.
//!
//! A lease saves work, nothing depends on it: two instances that relay one shard for a moment publish the same messages
//! under the same keys.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;
use tidings_postgres::{Fault, Postgres};

use crate::model::Shard;

/// The shards.
#[derive(Clone, Debug)]
pub struct Shards {
    postgres: Postgres,
}

impl Shards {
    pub(super) fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// Leases a fair share of the shards to `worker` for a while: those that it has, as far as they are no more than its
    /// share, and those that nobody has. Says, too, whether there are other workers.
    pub async fn lease(&self, worker: &str, life: Duration) -> Result<(Vec<Shard>, bool), Fault> {
        let life = interval(life);
        let leased = self
            .postgres
            .run_background(async |connection| {
                sqlx::query!(
                    r#"
                    WITH gone AS (
                        DELETE FROM relay_worker
                        WHERE alive_until < now() - interval '1 hour'
                    ), present AS (
                        INSERT INTO relay_worker (worker, alive_until)
                        VALUES ($1, now() + $2)
                        ON CONFLICT (worker) DO UPDATE
                        SET alive_until = EXCLUDED.alive_until
                    ), share AS (
                        SELECT ceil(16.0 / (1 + count(*)))::bigint AS shards,
                               count(*) > 0 AS divided
                        FROM relay_worker
                        WHERE worker <> $1
                          AND alive_until >= now()
                    ), chosen AS (
                        SELECT shard
                        FROM relay_shard
                        WHERE worker = $1
                           OR lease_until < now()
                        ORDER BY worker IS NOT DISTINCT FROM $1 DESC, shard
                        LIMIT (SELECT shards FROM share)
                        FOR UPDATE SKIP LOCKED
                    ), leased AS (
                        UPDATE relay_shard
                        SET worker = $1,
                            lease_until = now() + $2
                        FROM chosen
                        WHERE relay_shard.shard = chosen.shard
                        RETURNING relay_shard.shard
                    )
                    SELECT coalesce(array_agg(shard), '{}') AS "shards!",
                           (SELECT divided FROM share) AS "divided!"
                    FROM leased
                    "#,
                    worker,
                    life,
                )
                .fetch_one(connection)
                .await
            })
            .await?;
        Ok((leased.shards.into_iter().filter_map(Shard::new).collect(), leased.divided))
    }

    /// Gives up all shards of `worker`, so that others need not wait for the end of its leases.
    pub async fn leave(&self, worker: &str) -> Result<(), Fault> {
        self.postgres
            .run_background(async |connection| {
                sqlx::query!(
                    r#"
                    WITH gone AS (
                        DELETE FROM relay_worker
                        WHERE worker = $1
                    )
                    UPDATE relay_shard
                    SET lease_until = '-infinity'
                    WHERE worker = $1
                    "#,
                    worker,
                )
                .execute(connection)
                .await
            })
            .await?;
        Ok(())
    }
}

fn interval(duration: Duration) -> PgInterval {
    let microseconds = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    PgInterval { months: 0, days: 0, microseconds }
}
