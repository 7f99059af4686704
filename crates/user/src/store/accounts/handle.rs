//! Reads of `user_account` by handle.

use sqlx::PgConnection;
use tidings_postgres::Fault;

use super::Accounts;
use crate::model::{HandleKey, User};
use crate::store::row::{Row, query_rows};

impl Accounts {
    /// Returns the user that has a handle.
    pub async fn read_by_handle(&self, handle: &HandleKey) -> Result<Option<User>, Fault> {
        let row = self.reads.read(async |connection| row(connection, handle).await).await?;
        Ok(row.map(Row::into_user))
    }
}

async fn row(connection: &mut PgConnection, handle: &HandleKey) -> Result<Option<Row>, sqlx::Error> {
    query_rows!(
        "
        SELECT " COLUMNS "
        FROM user_account
        WHERE handle_key = $1",
        handle.as_str(),
    )
    .fetch_optional(connection)
    .await
}
