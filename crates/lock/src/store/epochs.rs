//! `lock_epoch`: which epoch is the last, and how long leases may be that somebody still believes in.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tidings_postgres::{Fault, Postgres};

use crate::model::Epoch;

/// The one partition that there is.
const PARTITION: i16 = 0;

/// The epochs.
#[derive(Clone, Debug)]
pub struct Epochs {
    postgres: Postgres,
}

/// The row of the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The last epoch that was opened; 0: none was.
    pub epoch: Epoch,
    /// The reign of Redis that it was opened for.
    pub reign: String,
    /// No lease of this epoch is longer.
    pub max_ttl: Duration,
    /// The longest lease of earlier epochs that may still be believed in.
    pub carry_ttl: Duration,
    /// How long ago it was opened, or will have been, by the clock of Postgres, which may jump.
    pub age: Duration,
}

/// An epoch to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Which.
    pub epoch: Epoch,
    /// The reign of Redis that it is opened for.
    pub reign: String,
    /// The longest lease in it, at first.
    pub max_ttl: Duration,
    /// The longest lease of earlier epochs that may still be believed in.
    pub carry_ttl: Duration,
    /// How long nobody is granted anything in it.
    pub quarantine: Duration,
}

impl Epochs {
    pub(super) fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// Locks the row, made if it is not there, and lets `decide` say whether an epoch shall be opened. Nobody else decides
    /// meanwhile, on no instance.
    ///
    /// # Errors
    /// Outside, [`Fault`]; after `Ambiguous` the epoch may have been opened. Inside, what `decide` says: nothing was changed.
    pub async fn decide<T, E>(
        &self,
        decide: impl AsyncFnOnce(Row) -> Result<(T, Option<Opening>), E>,
    ) -> Result<Result<T, E>, Fault> {
        self.postgres
            .run_background(async |connection| {
                let mut transaction = connection.begin().await?;
                insert(&mut transaction).await?;
                let row = lock(&mut transaction).await?;
                let (decision, opening) = match decide(row).await {
                    Ok(decided) => decided,
                    Err(error) => return Ok(Err(error)),
                };
                if let Some(opening) = &opening {
                    open(&mut transaction, opening).await?;
                    transaction.commit().await?;
                }
                Ok(Ok(decision))
            })
            .await
    }

    /// Makes sure that leases of `ttl` are known of in `epoch`. Returns the longest that is; `None` if the epoch is over.
    pub async fn allow(&self, epoch: Epoch, ttl: Duration) -> Result<Option<Duration>, Fault> {
        let allowed = self
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
        Ok(allowed.map(duration))
    }

    /// Forgets the leases of epochs before `epoch`, whose quarantine is over; nothing if that is not the last one.
    pub async fn settle(&self, epoch: Epoch) -> Result<(), Fault> {
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

/// Makes the row, if it is not there; whoever does so at the same time waits for us.
async fn insert(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        INSERT INTO lock_epoch (partition, epoch, reign, max_ttl_ms, carry_ttl_ms, activate_time)
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
               reign,
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
        epoch: Epoch::new(row.epoch),
        reign: row.reign,
        max_ttl: duration(row.max_ttl_ms),
        carry_ttl: duration(row.carry_ttl_ms),
        age: duration(row.age_ms),
    })
}

async fn open(connection: &mut PgConnection, opening: &Opening) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        UPDATE lock_epoch
        SET epoch = $2,
            reign = $3,
            max_ttl_ms = $4,
            carry_ttl_ms = $5,
            activate_time = clock_timestamp()
        WHERE partition = $1
        "#,
        PARTITION,
        opening.epoch.get(),
        opening.reign,
        millis(opening.max_ttl),
        millis(opening.carry_ttl),
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
