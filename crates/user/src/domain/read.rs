//! One user in one call: the memory of this instance, the cache, and what neither of them has from Postgres.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::flights::{Boarding, Pilot};
use super::{Error, Users};
use crate::cache::{Cached, Filled, Leased, Other, Token};
use crate::model::{Read, Record, Source, UserId};
use crate::store;

/// The first pause of a load that waits for another's fill and will not be told of it; it doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The same, of one that is told, unless that gets lost.
const PAUSE_TOLD: Duration = Duration::from_millis(50);

/// How a user is loaded whom the cache could not tell of.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// The cache has nothing: it is filled, under a lease.
    Fill,
    /// The cache has less than is asked for, or may have: it is told what Postgres has.
    Renew,
    /// The cache does not answer, or has what it must not be believed in: only Postgres is asked.
    Past,
}

impl Users {
    /// Reads one user, at `min_version` or above.
    pub async fn get(&self, id: &UserId, min_version: i64) -> Result<Read, Error> {
        Ok(self.counted(self.read(id, min_version).await?))
    }

    /// Reads one user from Postgres, filling nothing.
    pub async fn get_strong(&self, id: &UserId, min_version: i64) -> Result<Read, Error> {
        let record = self.store.accounts.read(id).await?;
        Ok(self.counted(sufficient(from_postgres(record), min_version)?))
    }

    /// Reads the memory, then the cache, and what they do not have from Postgres. Loads are boxed: a hit, which needs none, is
    /// moved about with every call.
    async fn read(&self, id: &UserId, min_version: i64) -> Result<Read, Error> {
        if self.writes.is_missed(id) {
            return Box::pin(self.load(id, min_version, Way::Renew)).await;
        }
        if let Some(read) = self.read_near(id, min_version) {
            return Ok(read);
        }
        let ticket = self.near.ticket(id);
        let (cached, reign) = match self.cache.get(id).await {
            Ok((Some(cached), reign)) => (cached, reign),
            Ok((None, _)) => return Box::pin(self.load(id, min_version, Way::Fill)).await,
            Err(error) => {
                self.missed(&error);
                return Box::pin(self.load(id, min_version, Way::Past)).await;
            }
        };
        fail::fail_point!("user::before_near");
        if let Some(ticket) = ticket {
            self.near.keep(ticket, &reign, id, &cached);
        }
        if cached.record.version() < min_version {
            return Box::pin(self.load(id, min_version, Way::Renew)).await;
        }
        if self.cache.is_old(&cached) {
            self.refresh(vec![id.clone()]);
        }
        match self.believed(cached, Source::Redis) {
            Some(read) => Ok(read),
            None => Box::pin(self.load(id, min_version, Way::Past)).await,
        }
    }

    /// What this instance has in its memory, if that is enough.
    pub(super) fn read_near(&self, id: &UserId, min_version: i64) -> Option<Read> {
        let cached = self.near.get(id)?;
        if cached.record.version() < min_version {
            return None;
        }
        self.believed(cached, Source::Near)
    }

    /// Answers with what is cached.
    ///
    /// That there is no user is told only while Postgres answers: one may have been created of whom the cache has not heard.
    pub(super) fn believed(&self, cached: Cached, source: Source) -> Option<Read> {
        let stale = !self.store.answers();
        if stale && matches!(cached.record, Record::Absent { .. }) {
            return None;
        }
        Some(Read { age: cached.age(), record: cached.record, source, stale })
    }

    /// Loads a user whom the cache could not tell of, or waits for whoever does already.
    ///
    /// Whoever asks for more than any version wants a load that began after they came: an older one may bring less, and nobody
    /// knows when. While there are as many loads as there may be, the newest of them may do. A load that brings less than
    /// `min_version` says that there is not more only if it read Postgres, and began after the caller came.
    async fn load(&self, id: &UserId, min_version: i64, mut way: Way) -> Result<Read, Error> {
        let arrival = self.flights.next();
        let mut floor = if min_version > 0 { arrival } else { 0 };
        loop {
            let flight = match self.flights.board(id, floor) {
                Boarding::Joined(flight) => flight,
                Boarding::Begun(flight, pilot) => {
                    let users = self.clone();
                    self.tasks.spawn(async move { users.fly(pilot, way).await });
                    flight
                }
                Boarding::Full(flight) => match flight.landed().await {
                    Ok(read) if min_version > 0 && read.record.version() >= min_version => return Ok(read),
                    _ => continue,
                },
            };
            let number = flight.number;
            let read = flight.landed().await?;
            let last_word = read.source == Source::Postgres && number >= arrival;
            if last_word || read.record.version() >= min_version {
                return sufficient(read, min_version);
            }
            (floor, way) = (number + 1, Way::Renew);
        }
    }

    /// Does the work of a load, whether anybody still waits for it or not: a lease is always followed by its fill.
    async fn fly(self, pilot: Pilot, way: Way) {
        let read = match way {
            Way::Fill => self.lease_and_fill(&pilot).await,
            Way::Renew => match self.load_unproved(&pilot).await {
                Ok(read) => {
                    self.apply(pilot.id(), &read.record).await;
                    Ok(read)
                }
                Err(fault) => Err(fault),
            },
            Way::Past => self.load_unproved(&pilot).await,
        };
        pilot.land(read.map_err(Error::from));
    }

    /// Reads Postgres and fills the cache, or waits for whoever does.
    async fn lease_and_fill(&self, pilot: &Pilot) -> Result<Read, store::Error> {
        let leased = self.cache.lease(pilot.id()).await.inspect(|leased| self.numbers.leased(leased));
        let cached = match leased {
            Ok(Leased::Granted(token)) => return self.read_and_fill(pilot, token).await,
            Ok(Leased::Present(cached)) => Some(cached),
            Ok(Leased::Taken(other)) => match self.await_fill(pilot.id(), &pilot.filled).await {
                None => return self.read_beside(pilot, &other).await,
                cached => cached,
            },
            Ok(Leased::Unreadable) => None,
            Err(error) => {
                self.missed(&error);
                None
            }
        };
        match cached.and_then(|cached| self.believed(cached, Source::Redis)) {
            Some(read) => Ok(read),
            None => self.load_unproved(pilot).await,
        }
    }

    /// Reads Postgres under a lease, and fills the cache; gives the lease back if there is nothing to fill.
    ///
    /// That the fill is accepted proves that no write was told to the cache meanwhile, so whoever joined in between is told
    /// nothing that was outdated when they came. If it is not, Postgres is read once more.
    async fn read_and_fill(&self, pilot: &Pilot, token: Token) -> Result<Read, store::Error> {
        let id = pilot.id();
        let read = self.store.accounts.read(id).await;
        fail::fail_point!("user::before_fill");
        let record = match read {
            Ok(record) => record,
            Err(fault) => {
                if let Err(error) = self.cache.release(id, token).await {
                    self.missed(&error);
                }
                return Err(fault);
            }
        };
        match self.cache.fill(id, token, &record).await {
            Ok(Filled::Stored) => Ok(from_postgres(record)),
            Ok(Filled::LeaseGone | Filled::Newer) => self.load_unproved(pilot).await,
            Err(error) => {
                self.missed(&error);
                self.load_unproved(pilot).await
            }
        }
    }

    /// Reads Postgres while another instance has the lease, and fills nothing. That lease proves as much as one's own.
    async fn read_beside(&self, pilot: &Pilot, other: &Other) -> Result<Read, store::Error> {
        let record = self.store.accounts.read(pilot.id()).await?;
        match self.cache.proves(pilot.id(), other, record.version()).await {
            Ok(true) => Ok(from_postgres(record)),
            Ok(false) => self.load_unproved(pilot).await,
            Err(error) => {
                self.missed(&error);
                self.load_unproved(pilot).await
            }
        }
    }

    /// Reads Postgres with nothing that would prove afterwards that nobody wrote meanwhile: nobody joins from now on. But whoever
    /// can run already, as those who waited for the load before, has a chance to.
    async fn load_unproved(&self, pilot: &Pilot) -> Result<Read, store::Error> {
        yield_now().await;
        pilot.close();
        self.store.accounts.read(pilot.id()).await.map(from_postgres)
    }

    /// Waits for what another instance is about to fill, but not for long.
    async fn await_fill(&self, id: &UserId, filled: &Notify) -> Option<Cached> {
        let deadline = Instant::now() + self.waits.fill;
        let mut pause = if self.near.is_live() { PAUSE_TOLD } else { PAUSE_MIN };
        while Instant::now() < deadline {
            tokio::select! {
                () = filled.notified() => {}
                () = sleep_until(deadline.min(Instant::now() + pause)) => pause *= 2,
            }
            match self.cache.get(id).await {
                Ok((None, _)) => {}
                Ok((cached, _)) => return cached,
                Err(_) => return None,
            }
        }
        None
    }

    /// Counts what is answered.
    fn counted(&self, read: Read) -> Read {
        self.numbers.read(&read);
        read
    }
}

/// An answer, if it is enough. An absent user is told as such whatever version was asked for.
pub(super) fn sufficient(read: Read, min_version: i64) -> Result<Read, Error> {
    match read.record {
        Record::Present(ref user) if user.version < min_version => Err(Error::VersionAhead { version: user.version }),
        _ => Ok(read),
    }
}

/// What Postgres said.
pub(super) fn from_postgres(record: Record) -> Read {
    Read { record, source: Source::Postgres, age: Duration::ZERO, stale: false }
}
