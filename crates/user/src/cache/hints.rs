//! `h:{handle}`: whose handle it was when somebody looked. A hint proves nothing, and counts only if the profile found under
//! the id has the handle now; so losing one, or having an old one, costs a look into Postgres.
//!
//! That nobody has a handle is not kept: whoever takes it would have to be believed at once.

use std::time::Duration;

use tidings_redis::{Cmd, Error, Lane};

use super::{Cache, jittered};
use crate::model::{HandleKey, UserId};

/// How long a hint stays: as long as its last look into Postgres shall save others.
const LIFE: Duration = Duration::from_mins(10);

impl Cache {
    /// Whose handle it may be. One round trip.
    pub async fn hint(&self, handle: &HandleKey) -> Result<Option<UserId>, Error> {
        let mut lane = self.redis.reader().await?;
        let owner: Option<String> = lane.send(&Cmd::get(hint_key(&lane, handle))).await?;
        Ok(owner.map(UserId::new))
    }

    /// Keeps what a reader found in Postgres, unless somebody has changed the hint that it `saw` before it looked: what they
    /// know may be newer. One round trip.
    pub async fn correct_hint(
        &self,
        handle: &HandleKey,
        saw: Option<&UserId>,
        owner: Option<&UserId>,
    ) -> Result<(), Error> {
        let mut lane = self.redis.writer(handle.as_str()).await?;
        let mut call = self.hint.key(hint_key(&lane, handle));
        call.arg(saw.map_or("", UserId::as_str)).arg(owner.map_or("", UserId::as_str)).arg(jittered(LIFE));
        let _kept: u8 = lane.write(&call).await.or_again()?;
        Ok(())
    }

    /// Tells who has just got a handle, whatever the hint was. One round trip.
    pub async fn tell_hint(&self, handle: &HandleKey, owner: &UserId) -> Result<(), Error> {
        let mut lane = self.redis.writer(handle.as_str()).await?;
        let mut command = Cmd::new();
        command.arg("SET").arg(hint_key(&lane, handle)).arg(owner.as_str()).arg("PX").arg(jittered(LIFE));
        lane.send_write(&command).await.or_again()
    }
}

fn hint_key(lane: &Lane, handle: &HandleKey) -> String {
    lane.key(format_args!("h:{{{handle}}}"))
}
