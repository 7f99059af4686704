//! Users page by page, always from Postgres: a list of what happens to be cached would be none.

use super::{Error, Users};
use crate::model::{Listing, Page};

impl Users {
    /// The users of a list that come after a place in it, at most `size` of them. A place is an id, or the key of a handle, as
    /// the list is ordered.
    pub async fn list(&self, listing: &Listing, after: &str, size: usize) -> Result<Page, Error> {
        let accounts = &self.store.accounts;
        let limit = i64::try_from(size).unwrap_or(i64::MAX - 1) + 1; // one more says that there are more
        let mut users = match listing {
            Listing::ById => accounts.after_id(after, limit).await?,
            Listing::ByHandle(prefix) => accounts.after_handle(prefix, after, limit).await?,
        };
        let more = users.len() > size;
        users.truncate(size);
        Ok(Page { users, more })
    }
}
