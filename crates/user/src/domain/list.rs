//! Lists of users, always from Postgres: the cache has only some users.

use super::{Error, Users};
use crate::model::{Listing, UserPage};

impl Users {
    /// Returns up to `size` users of a list.
    pub async fn list(&self, listing: &Listing, size: usize) -> Result<UserPage, Error> {
        let accounts = &self.store.accounts;
        let limit = i64::try_from(size).unwrap_or(i64::MAX - 1) + 1; // one more shows if there is a next page
        let mut users = match listing {
            Listing::ById { after } => accounts.page_by_id(after.as_ref(), limit).await?,
            Listing::ByHandle { prefix, after } => accounts.page_by_handle(prefix, after.as_ref(), limit).await?,
        };
        let more = users.len() > size;
        users.truncate(size);
        Ok(UserPage { users, more })
    }
}
