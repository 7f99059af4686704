//! Table `lock_epoch`: the last epoch, and the longest leases that may still be held.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tidings_postgres::{Fault, Postgres};

use crate::model::LockEpoch;

/// The only partition so far.
const PARTITION: i16 = 0;

/// Access to the table `lock_epoch`.
#[derive(Clone, Debug)]
pub struct Epochs {
    postgres: Postgres,
}

/// Row of the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Last epoch that was opened; 0 before the first.
    pub epoch: LockEpoch,
    /// Incarnation of Redis for which it was opened.
    pub incarnation: String,
    /// Longest lease of this epoch; raised before a longer one is granted.
    pub max_ttl: Duration,
    /// Longest lease of earlier epochs that may still be held.
    pub carry_ttl: Duration,
    /// Time since the epoch was opened, by the clock of Postgres. That clock may jump back, so this
    /// is the absolute difference.
    pub age: Duration,
}

/// Epoch to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEpoch {
    /// Number of the epoch.
    pub epoch: LockEpoch,
    /// Incarnation of Redis for which it is opened.
    pub incarnation: String,
    /// Longest lease in it, until a longer one is recorded.
    pub max_ttl: Duration,
    /// Longest lease of earlier epochs that may still be held.
    pub carry_ttl: Duration,
    /// Time after its activation in which nothing is granted.
    pub quarantine: Duration,
}

impl Epochs {
    pub(super) fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// Locks the row, inserted if absent, and opens the epoch that `decide` returns, if any. The
    /// row lock excludes every other instance until the end.
    ///
    /// # Errors
    /// The outer error is a [`Fault`]; after `Ambiguous` the epoch may have been opened. The inner
    /// error is that of `decide`; nothing was changed.
    pub async fn decide<T, E>(
        &self,
        decide: impl AsyncFnOnce(Row) -> Result<(T, Option<NewEpoch>), E>,
    ) -> Result<Result<T, E>, Fault> {
        self.postgres
            .run_background(async |connection| {
                let mut transaction = connection.begin().await?;
                insert(&mut transaction).await?;
                let row = lock(&mut transaction).await?;
                let (decision, new_epoch) = match decide(row).await {
                    Ok(decided) => decided,
                    Err(error) => return Ok(Err(error)),
                };
                if let Some(new_epoch) = &new_epoch {
                    open(&mut transaction, new_epoch).await?;
                    transaction.commit().await?;
                }
                Ok(Ok(decision))
            })
            .await
    }

    /// Records that leases of up to `ttl` may exist in `epoch`. Returns the longest recorded;
    /// `None` if the epoch is over.
    pub async fn raise_max_ttl(&self, epoch: LockEpoch, ttl: Duration) -> Result<Option<Duration>, Fault> {
        let raised = self
            .postgres
            .run(async |connection| {
                sqlx::query_scalar!(
                    r#"
                    UPDATE lock_epoch
                    SET max_ttl_ms = GREATEST(max_ttl_ms, $3)
                    WHERE partition = $1
                      AND epoch = $2
                    RETURNING max_ttl_ms
                    "#,
                    PARTITION,
                    epoch.get(),
                    millis(ttl),
                )
                .fetch_optional(connection)
                .await
            })
            .await?;
        Ok(raised.map(duration))
    }

    /// Clears the carried TTL after the quarantine of `epoch`; no effect if that is not the last
    /// epoch.
    pub async fn clear_carried_ttl(&self, epoch: LockEpoch) -> Result<(), Fault> {
        self.postgres
            .run_background(async |connection| {
                sqlx::query!(
                    r#"
                    UPDATE lock_epoch
                    SET carry_ttl_ms = 0
                    WHERE partition = $1
                      AND epoch = $2
                    "#,
                    PARTITION,
                    epoch.get(),
                )
                .execute(connection)
                .await
            })
            .await?;
        Ok(())
    }
}

/// Inserts the row if it is absent. A concurrent insert waits for this one.
async fn insert(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        INSERT INTO lock_epoch (partition, epoch, incarnation, max_ttl_ms, carry_ttl_ms, activate_time)
        VALUES ($1, 0, '', 0, 0, now())
        ON CONFLICT (partition) DO NOTHING
        "#,
        PARTITION,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn lock(connection: &mut PgConnection) -> Result<Row, sqlx::Error> {
    let row = sqlx::query!(
        r#"
        SELECT epoch,
               incarnation,
               max_ttl_ms,
               carry_ttl_ms,
               abs(extract(epoch FROM clock_timestamp() - activate_time) * 1000)::bigint AS "age_ms!"
        FROM lock_epoch
        WHERE partition = $1
        FOR UPDATE
        "#,
        PARTITION,
    )
    .fetch_one(connection)
    .await?;
    Ok(Row {
        epoch: LockEpoch::new(row.epoch),
        incarnation: row.incarnation,
        max_ttl: duration(row.max_ttl_ms),
        carry_ttl: duration(row.carry_ttl_ms),
        age: duration(row.age_ms),
    })
}

async fn open(connection: &mut PgConnection, new_epoch: &NewEpoch) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        UPDATE lock_epoch
        SET epoch = $2,
            incarnation = $3,
            max_ttl_ms = $4,
            carry_ttl_ms = $5,
            activate_time = clock_timestamp()
        WHERE partition = $1
        "#,
        PARTITION,
        new_epoch.epoch.get(),
        new_epoch.incarnation,
        millis(new_epoch.max_ttl),
        millis(new_epoch.carry_ttl),
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn duration(millis: i64) -> Duration {
    Duration::from_millis(millis.try_into().unwrap_or(0))
}
