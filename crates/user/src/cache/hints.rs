//! Hints `h:{handle}`: the id of the user that had a handle when it was last read from Postgres.
//!
//! A hint proves nothing: it is used only if the profile under its id has the handle now. A lost or
//! outdated hint costs one read of Postgres. The absence of an owner is not cached, because a new
//! owner must be found as soon as its write is acknowledged.

use std::time::Duration;

use tidings_redis::{Cmd, Error, Lane, jittered_ttl};

use super::Cache;
use super::outcomes::HintOutcome;
use crate::model::{HandleKey, UserId};

/// TTL of a hint before jitter: one read of Postgres serves a popular handle for this long.
const HINT_TTL: Duration = Duration::from_mins(10);

impl Cache {
    /// Returns the id of the user that may have the handle. One round trip.
    pub async fn hint(&self, handle: &HandleKey) -> Result<Option<UserId>, Error> {
        let mut lane = self.redis.reader().await?;
        let owner: Option<String> = lane.send(&Cmd::get(hint_key(&lane, handle))).await?;
        Ok(owner.map(UserId::new))
    }

    /// Stores the owner that a reader found in Postgres, or deletes the hint if there is none. Does
    /// so only if the hint is still the one that the reader had `seen` before it read: another
    /// change may be newer. One round trip.
    pub async fn correct_hint(
        &self,
        handle: &HandleKey,
        seen: Option<&UserId>,
        owner: Option<&UserId>,
    ) -> Result<(), Error> {
        let mut lane = self.redis.writer(handle.as_str()).await?;
        let mut call = self.hint.key(hint_key(&lane, handle));
        call.arg(seen.map_or("", UserId::as_str))
            .arg(owner.map_or("", UserId::as_str))
            .arg(jittered_ttl(HINT_TTL, rand::random()));
        let _outcome: HintOutcome = lane.write(&call).await.assume_idempotent()?;
        Ok(())
    }

    /// Stores the new owner of a handle, replacing any hint. One round trip.
    pub async fn set_hint(&self, handle: &HandleKey, owner: &UserId) -> Result<(), Error> {
        let mut lane = self.redis.writer(handle.as_str()).await?;
        let mut command = Cmd::new();
        command
            .arg("SET")
            .arg(hint_key(&lane, handle))
            .arg(owner.as_str())
            .arg("PX")
            .arg(jittered_ttl(HINT_TTL, rand::random()));
        lane.send_write(&command).await.assume_idempotent()
    }
}

fn hint_key(lane: &Lane, handle: &HandleKey) -> String {
    lane.key(format_args!("h:{{{handle}}}"))
}
