//! Why a user is not changed: the look after a statement that found nothing to change.

use tidings_postgres::Fault;

use super::Accounts;
use crate::model::UserId;

/// Why a user is not changed.
pub(super) enum Refusal {
    /// There is none.
    NotFound,
    /// The user is at another version than expected.
    Mismatch {
        /// The one it is at.
        version: i64,
    },
}

impl Accounts {
    /// Looks why a user could not be changed at a version, or at any. `None`: nothing stands against it, because the user was
    /// created, or came to that version, after it was tried. Whoever tries again gets that answer no more: versions only grow, and
    /// ids are never used again.
    pub(super) async fn why_not(&self, id: &UserId, expected_version: Option<i64>) -> Result<Option<Refusal>, Fault> {
        fail::fail_point!("user::before_why_not");
        Ok(match self.row_for_write(&id.to_string()).await?.filter(|row| !row.deleted) {
            None => Some(Refusal::NotFound),
            Some(row) if expected_version.is_none_or(|version| version == row.version) => None,
            Some(row) => Some(Refusal::Mismatch { version: row.version }),
        })
    }
}
