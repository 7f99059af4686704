//! Users by handle: a cached hint names the possible owner, Postgres decides.
//!
//! - A hint is used only if the profile under its id, read like any profile, has the handle now. So
//!   an outdated hint is never served, and the promises of profiles (`min_version`, `stale`) hold
//!   for handles, too.
//! - A write that takes a handle sets the hint before it is acknowledged, because the profile of
//!   the former owner may not be applied to the cache yet. A reader replaces only the hint that it
//!   saw before it read Postgres, so it never replaces a newer owner by an older one.
//! - Only Postgres reports that a handle has no owner.

use super::read::{ensure_min_version, from_postgres};
use super::{Error, Users};
use crate::model::{Consistency, HandleKey, User, UserId, UserRead, UserRecord};
use crate::wire;

impl Users {
    /// Reads the user that has a handle, at `min_version` or above.
    pub async fn get_by_handle(
        &self,
        handle: &HandleKey,
        min_version: i64,
        consistency: Consistency,
    ) -> Result<UserRead, Error> {
        if consistency == Consistency::Strong {
            return self.finish_read(self.store.accounts.read_by_handle(handle).await?, min_version);
        }
        let hint = match self.cache.hint(handle).await {
            Ok(hint) => hint,
            Err(error) => {
                self.log_redis_failure(&error);
                return self.finish_read(self.store.accounts.read_by_handle(handle).await?, min_version);
            }
        };
        if let Some(id) = &hint
            && let Some(read) = self.read_hinted(id, handle, min_version).await?
        {
            return Ok(read);
        }
        let found = self.store.accounts.read_by_handle(handle).await?;
        fail::fail_point!("user::before_hint");
        let owner = found.as_ref().map(|user| &user.id);
        if hint.as_ref() != owner {
            let corrected = self.cache.correct_hint(handle, hint.as_ref(), owner).await;
            corrected.unwrap_or_else(|error| self.log_redis_failure(&error));
        }
        self.finish_read(found, min_version)
    }

    /// Reads the user of a hint; `None` if it does not have the handle.
    async fn read_hinted(&self, id: &UserId, handle: &HandleKey, min_version: i64) -> Result<Option<UserRead>, Error> {
        match self.get(id, min_version, Consistency::Cached).await {
            Ok(read) => Ok(Some(read).filter(|read| has_handle(&read.record, handle))),
            // The hinted user is below `min_version`: it may not be the owner.
            Err(Error::VersionAhead { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets the hint of a handle after the commit that gave it to `owner`.
    pub(super) async fn publish_handle(&self, owner: &User) {
        fail::fail_point!("user::before_publish_handle");
        let set = self.cache.set_hint(&HandleKey::of(&owner.profile.handle), &owner.id).await;
        set.unwrap_or_else(|error| self.log_redis_failure(&error));
    }

    /// Checks `min_version` of a user read from Postgres, and counts the read.
    fn finish_read(&self, found: Option<User>, min_version: i64) -> Result<UserRead, Error> {
        let read = from_postgres(
            found.map_or(UserRecord::Absent { version: 0 }, |user| UserRecord::Present(wire::encoded(user))),
        );
        let read = ensure_min_version(read, min_version)?;
        self.metrics.record_read(&read);
        Ok(read)
    }
}

fn has_handle(record: &UserRecord, handle: &HandleKey) -> bool {
    match record {
        UserRecord::Present(user) => wire::handle_key(user).as_ref() == Some(handle),
        UserRecord::Absent { .. } => false,
    }
}
