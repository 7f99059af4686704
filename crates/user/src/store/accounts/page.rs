//! Users one after the other, by keyset: a page begins after the last key of the one before, so what is inserted or deleted in
//! between moves nobody.

use std::collections::BTreeMap;

use sqlx::types::Json;
use tidings_postgres::Fault;

use super::Accounts;
use crate::model::{HandleKey, User};
use crate::store::row::Row;

/// Above every key that begins with what it is put behind: no handle has this last of all code points, which stands for no
/// character.
const LAST: char = char::MAX;

impl Accounts {
    /// At most `limit` users whose ids come after this one, by id.
    pub async fn after_id(&self, id: &str, limit: i64) -> Result<Vec<User>, Fault> {
        let rows = self
            .reads
            .run(async |connection| {
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
                    WHERE id > $1
                      AND delete_time IS NULL
                    ORDER BY id
                    LIMIT $2
                    "#,
                    id,
                    limit,
                )
                .fetch_all(connection)
                .await
            })
            .await?;
        Ok(rows.into_iter().map(Row::into_user).collect())
    }

    /// At most `limit` users whose handles begin with `prefix` and come after `handle`, by handle.
    pub async fn after_handle(&self, prefix: &HandleKey, handle: &str, limit: i64) -> Result<Vec<User>, Fault> {
        let rows = self
            .reads
            .run(async |connection| {
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
                    WHERE handle_key >= $1
                      AND handle_key < $2
                      AND handle_key > $3
                    ORDER BY handle_key
                    LIMIT $4
                    "#,
                    prefix.as_str(),
                    format!("{prefix}{LAST}"),
                    handle,
                    limit,
                )
                .fetch_all(connection)
                .await
            })
            .await?;
        Ok(rows.into_iter().map(Row::into_user).collect())
    }
}
