//! Keyset pages of users: a page starts after the last key of the page before, so concurrent
//! inserts and deletions shift no other user.

use tidings_postgres::Fault;

use super::Accounts;
use crate::model::{HandleKey, User, UserId};
use crate::store::row::{Row, query_rows};

/// Upper bound of a prefix scan: `prefix + LAST` sorts after every key with that prefix, because
/// this noncharacter, the last code point, is in no handle.
const LAST: char = char::MAX;

impl Accounts {
    /// Returns up to `limit` users whose ids follow `after`, ordered by id.
    pub async fn page_by_id(&self, after: Option<&UserId>, limit: i64) -> Result<Vec<User>, Fault> {
        let rows = self
            .reads
            .read(async |connection| {
                query_rows!(
                    "
                    SELECT " COLUMNS "
                    FROM user_account
                    WHERE id > $1
                      AND delete_time IS NULL
                    ORDER BY id
                    LIMIT $2",
                    after.map_or("", UserId::as_str),
                    limit,
                )
                .fetch_all(connection)
                .await
            })
            .await?;
        Ok(rows.into_iter().map(Row::into_user).collect())
    }

    /// Returns up to `limit` users whose handle keys start with `prefix` and follow `after`,
    /// ordered by handle key.
    pub async fn page_by_handle(
        &self,
        prefix: &HandleKey,
        after: Option<&HandleKey>,
        limit: i64,
    ) -> Result<Vec<User>, Fault> {
        let rows = self
            .reads
            .read(async |connection| {
                query_rows!(
                    "
                    SELECT " COLUMNS "
                    FROM user_account
                    WHERE handle_key >= $1
                      AND handle_key < $2
                      AND handle_key > $3
                    ORDER BY handle_key
                    LIMIT $4",
                    prefix.as_str(),
                    format!("{prefix}{LAST}"),
                    after.map_or("", HandleKey::as_str),
                    limit,
                )
                .fetch_all(connection)
                .await
            })
            .await?;
        Ok(rows.into_iter().map(Row::into_user).collect())
    }
}
