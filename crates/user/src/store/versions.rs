//! Versions of users: reads of `user_account` without the profiles.

use sqlx::PgConnection;
use tidings_postgres::{Bulkhead, Fault, Postgres};

use crate::model::{UserId, UserVersion};

/// The versions in `user_account`.
#[derive(Clone, Debug)]
pub struct AccountVersions {
    postgres: Postgres,
    /// Share of the pool for reads of callers.
    reads: Bulkhead,
}

/// The columns that these reads select.
struct Row {
    id: String,
    version: i64,
    absent: bool,
}

impl Row {
    fn into_version(self) -> UserVersion {
        UserVersion { id: UserId::new(self.id), version: self.version, absent: self.absent }
    }
}

impl AccountVersions {
    pub(super) fn new(postgres: Postgres, reads: Bulkhead) -> Self {
        Self { postgres, reads }
    }

    /// Returns the versions of at most 1,000 ids; leaves out ids without a row.
    pub async fn read(&self, ids: &[UserId]) -> Result<Vec<UserVersion>, Fault> {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let rows = self.reads.read(async |connection| rows(connection, &ids).await).await?;
        Ok(rows.into_iter().map(Row::into_version).collect())
    }

    /// Like [`AccountVersions::read`], on the connections for background work.
    pub async fn read_for_relay(&self, ids: &[UserId]) -> Result<Vec<UserVersion>, Fault> {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let rows = self.postgres.run_background(async |connection| rows(connection, &ids).await).await?;
        Ok(rows.into_iter().map(Row::into_version).collect())
    }

    /// Returns the versions that are newer than the known ones, on the connections for background
    /// work.
    pub async fn newer(&self, known: &[(UserId, i64)]) -> Result<Vec<UserVersion>, Fault> {
        let (ids, versions): (Vec<String>, Vec<i64>) =
            known.iter().map(|(id, version)| (id.to_string(), *version)).unzip();
        let rows = self
            .postgres
            .run_background(async |connection| {
                sqlx::query_as!(
                    Row,
                    r#"
                    SELECT user_account.id,
                           user_account.version,
                           user_account.delete_time IS NOT NULL AS "absent!"
                    FROM unnest($1::text[], $2::bigint[]) AS known (id, version)
                    JOIN user_account
                      ON user_account.id = known.id COLLATE "C"
                     AND user_account.version > known.version
                    LIMIT cardinality($1::text[])
                    "#,
                    &ids,
                    &versions,
                )
                .fetch_all(connection)
                .await
            })
            .await?;
        Ok(rows.into_iter().map(Row::into_version).collect())
    }
}

async fn rows(connection: &mut PgConnection, ids: &[String]) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"
        SELECT id,
               version,
               delete_time IS NOT NULL AS "absent!"
        FROM user_account
        WHERE id = ANY($1)
        LIMIT 1000
        "#,
        ids,
    )
    .fetch_all(connection)
    .await
}
