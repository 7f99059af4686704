//! Explains an UPDATE that found no row to change.

use tidings_postgres::Fault;

use super::Accounts;
use crate::model::UserId;

/// Reason why an UPDATE changed no row.
pub(super) enum NoUpdateReason {
    /// The user does not exist, or is deleted.
    NotFound,
    /// The user is not at the expected version.
    Mismatch {
        /// The current version.
        version: i64,
    },
}

impl Accounts {
    /// Reads why a user could not be changed at this version, or at any.
    ///
    /// Returns `None` if the change is possible by now: the user was created, or reached that
    /// version, after the UPDATE. The caller retries; this can happen only once, because versions
    /// only grow and ids are never reused.
    pub(super) async fn explain_no_update(
        &self,
        id: &UserId,
        expected_version: Option<i64>,
    ) -> Result<Option<NoUpdateReason>, Fault> {
        fail::fail_point!("user::before_explain_no_update");
        Ok(match self.row_for_write(&id.to_string()).await?.filter(|row| !row.deleted) {
            None => Some(NoUpdateReason::NotFound),
            Some(row) if expected_version.is_none_or(|version| version == row.version) => None,
            Some(row) => Some(NoUpdateReason::Mismatch { version: row.version }),
        })
    }
}
