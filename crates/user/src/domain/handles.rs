//! Users by handle: a hint of the cache says whose it may be, Postgres whose it is.
//!
//! - A hint counts only if the profile under its id, read as any profile is, has the handle now. So what an old hint says is
//!   never answered, and what a profile promises (`min_version`, `stale`) holds for handles, too.
//! - Whoever gets a handle says so in the hint before it is acknowledged: the profile of the one who gave it up may not have been
//!   told to the cache yet. A reader changes only the hint that it saw before it looked into Postgres, so it never puts an older
//!   owner in the place of a newer one.
//! - That nobody has a handle is told by Postgres only.

use super::read::{from_postgres, sufficient};
use super::{Error, Users};
use crate::model::{HandleKey, Read, Record, User, UserId};
use crate::wire;

impl Users {
    /// Reads the user who has a handle, at `min_version` or above.
    pub async fn get_by_handle(&self, handle: &HandleKey, min_version: i64) -> Result<Read, Error> {
        let hint = match self.cache.hint(handle).await {
            Ok(hint) => hint,
            Err(error) => {
                self.missed(&error);
                return self.found(self.store.accounts.read_by_handle(handle).await?, min_version);
            }
        };
        if let Some(id) = &hint
            && let Some(read) = self.hinted(id, handle, min_version).await?
        {
            return Ok(read);
        }
        let found = self.store.accounts.read_by_handle(handle).await?;
        fail::fail_point!("user::before_hint");
        let owner = found.as_ref().map(|user| &user.id);
        if hint.as_ref() != owner {
            let told = self.cache.correct_hint(handle, hint.as_ref(), owner).await;
            told.unwrap_or_else(|error| self.missed(&error));
        }
        self.found(found, min_version)
    }

    /// Reads the user who has a handle from Postgres, filling nothing.
    pub async fn get_by_handle_strong(&self, handle: &HandleKey, min_version: i64) -> Result<Read, Error> {
        self.found(self.store.accounts.read_by_handle(handle).await?, min_version)
    }

    /// Reads the user of a hint; `None` if it is not the one who has the handle.
    async fn hinted(&self, id: &UserId, handle: &HandleKey, min_version: i64) -> Result<Option<Read>, Error> {
        match self.get(id, min_version).await {
            Ok(read) => Ok(Some(read).filter(|read| has(&read.record, handle))),
            // It has less than was asked for: of somebody else, perhaps.
            Err(Error::VersionAhead { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tells the cache whose a handle is since a commit.
    pub(super) async fn tell_handle(&self, owner: &User) {
        fail::fail_point!("user::before_tell_handle");
        let told = self.cache.tell_hint(&HandleKey::of(&owner.profile.handle), &owner.id).await;
        told.unwrap_or_else(|error| self.missed(&error));
    }

    /// What Postgres said, if it is enough.
    fn found(&self, found: Option<User>, min_version: i64) -> Result<Read, Error> {
        let read =
            from_postgres(found.map_or(Record::Absent { version: 0 }, |user| Record::Present(wire::encoded(user))));
        let read = sufficient(read, min_version)?;
        self.numbers.read(&read);
        Ok(read)
    }
}

fn has(record: &Record, handle: &HandleKey) -> bool {
    match record {
        Record::Present(user) => wire::handle_key(user).as_ref() == Some(handle),
        Record::Absent { .. } => false,
    }
}
