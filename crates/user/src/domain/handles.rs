//! Users by handle: a cached hint names the possible owner, Postgres decides.
//!
//! - A hint is used only if the profile under its id, read like any profile, has the handle now. So
//!   an outdated hint is never served, and the promises of profiles (`min_version`, `stale`) hold
//!   for handles, too.
//! - A write that takes a handle sets the hint before it is acknowledged, because the profile of
//!   the former owner may not be applied to the cache yet. A reader replaces only the hint that it
//!   saw before it read Postgres, so it never replaces a newer owner by an older one.
//! - Only Postgres reports that a handle has no owner.
//! - Readers without a hint share a read of Postgres that starts after their calls, as readers with
//!   a `min_version` do: 200 concurrent ones cost 2 statements
//!   (`readers_of_a_handle_without_hint_share_postgres_reads`).

use super::read::{JoinOutcome, ensure_min_version, from_postgres};
use super::{Error, Users};
use crate::model::{Consistency, HandleKey, User, UserId, UserRead, UserRecord};
use crate::{store, wire};

/// The hint that a reader saw before it read Postgres.
type SeenHint = Option<UserId>;

impl Users {
    /// Reads the user that has a handle, at `min_version` or above.
    pub async fn get_by_handle(
        &self,
        handle: &HandleKey,
        min_version: i64,
        consistency: Consistency,
    ) -> Result<UserRead, Error> {
        let read = if consistency == Consistency::Strong {
            owner_read(self.store.accounts.read_by_handle(handle).await?)
        } else {
            let hint = self.cache.hint(handle).await.inspect_err(|error| self.log_redis_failure(error));
            if let Ok(Some(id)) = &hint
                && let Some(read) = self.read_hinted(id, handle, min_version).await?
            {
                return Ok(read);
            }
            self.load_by_handle(handle, hint.ok()).await?
        };
        let read = ensure_min_version(read, min_version)?;
        self.metrics.record_read(&read);
        Ok(read)
    }

    /// Reads the owner from Postgres, by a statement that starts after this call. Concurrent
    /// callers share it, so that a popular handle without a hint costs two statements.
    async fn load_by_handle(&self, handle: &HandleKey, hint: Option<SeenHint>) -> Result<UserRead, Error> {
        let arrival = self.handle_loads.next();
        loop {
            match self.handle_loads.join_or_start(handle, arrival) {
                JoinOutcome::Joined(waiter) => return waiter.wait().await,
                JoinOutcome::Started(waiter, leader) => {
                    let users = self.clone();
                    self.tasks.spawn(async move {
                        let read = users.read_and_correct_hint(leader.key(), hint).await;
                        leader.complete(read.map_err(Error::from));
                    });
                    return waiter.wait().await;
                }
                JoinOutcome::AtCapacity(waiter) => drop(waiter.wait().await),
            }
        }
    }

    /// Reads the owner from Postgres, and corrects the hint that was seen before.
    async fn read_and_correct_hint(
        &self,
        handle: &HandleKey,
        hint: Option<SeenHint>,
    ) -> Result<UserRead, store::Error> {
        let found = self.store.accounts.read_by_handle(handle).await?;
        fail::fail_point!("user::before_hint");
        let owner = found.as_ref().map(|user| &user.id);
        if let Some(seen) = hint
            && seen.as_ref() != owner
        {
            let corrected = self.cache.correct_hint(handle, seen.as_ref(), owner).await;
            corrected.unwrap_or_else(|error| self.log_redis_failure(&error));
        }
        Ok(owner_read(found))
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
}

/// Builds the result from the owner in Postgres, if there is one.
fn owner_read(found: Option<User>) -> UserRead {
    from_postgres(found.map_or(UserRecord::Absent { version: 0 }, |user| UserRecord::Present(wire::encoded(user))))
}

fn has_handle(record: &UserRecord, handle: &HandleKey) -> bool {
    match record {
        UserRecord::Present(user) => wire::handle_key(user).as_ref() == Some(handle),
        UserRecord::Absent { .. } => false,
    }
}
