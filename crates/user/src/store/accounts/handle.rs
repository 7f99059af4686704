//! Who has a handle.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use sqlx::types::Json;
use tidings_postgres::Fault;

use super::Accounts;
use crate::model::{HandleKey, User};
use crate::store::row::Row;

impl Accounts {
    /// Who has a handle.
    pub async fn read_by_handle(&self, handle: &HandleKey) -> Result<Option<User>, Fault> {
        let row = self.reads.run(async |connection| row(connection, handle).await).await?;
        Ok(row.map(Row::into_user))
    }
}

async fn row(connection: &mut PgConnection, handle: &HandleKey) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"
        SELECT id,
               handle,
               display_name,
               age,
               avatar_uri,
               bio,
               attributes AS "attributes: Json<BTreeMap<String, String>>",
               version,
               create_time,
               update_time,
               false AS "deleted!"
        FROM user_account
        WHERE handle_key = $1
        "#,
        handle.as_str(),
    )
    .fetch_optional(connection)
    .await
}
