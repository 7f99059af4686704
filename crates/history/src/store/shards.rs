//! Tables `relay_shard` and `relay_worker`: leases of outbox shards to instances.
//!
//! A lease only saves work, correctness does not depend on it: two instances that relay the same
//! shard for a moment publish the same messages under the same keys.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;
use tidings_postgres::{Fault, Postgres};

use crate::model::Shard;

/// Access to the tables `relay_shard` and `relay_worker`.
#[derive(Clone, Debug)]
pub struct Shards {
    postgres: Postgres,
}

/// The shards that a worker has leased.
#[derive(Clone, Debug, Default)]
pub struct LeasedShards {
    /// The shards, in no order.
    pub shards: Vec<Shard>,
    /// True if other workers are alive.
    pub has_peers: bool,
}

impl Shards {
    pub(super) fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// Leases a fair share of the shards to `worker` for `ttl`: first the shards that it has, then
    /// free ones, up to its share.
    pub async fn lease(&self, worker: &str, ttl: Duration) -> Result<LeasedShards, Fault> {
        let ttl = interval(ttl);
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
                    ttl,
                )
                .fetch_one(connection)
                .await
            })
            .await?;
        Ok(LeasedShards {
            shards: leased.shards.into_iter().filter_map(Shard::new).collect(),
            has_peers: leased.divided,
        })
    }

    /// Releases all shards of `worker`, so that other workers need not wait until its leases
    /// expire.
    pub async fn release(&self, worker: &str) -> Result<(), Fault> {
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
