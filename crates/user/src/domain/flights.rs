//! Loads under way: whoever wants what is being loaded waits for it instead of loading it, too.
//!
//! Of one user at most two loads are under way at once: one that began too early for somebody, and the next one. A load is
//! *closed* when it can not prove any more that it brings what is true when it lands: nobody joins it from then on, so that
//! what it reads next is new enough for everybody who has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::Error;
use crate::model::{Read, UserId};

/// The most loads of one user that are under way at once.
const LOADS_MAX: usize = 2;

/// What a load brought.
type Landing = Result<Read, Error>;

/// The loads under way, by user.
#[derive(Debug, Default)]
pub(super) struct Flights {
    under_way: Mutex<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    /// The number of the next load.
    next: u64,
    users: HashMap<UserId, Loads>,
}

/// The loads of one user.
#[derive(Debug, Default)]
struct Loads {
    /// In the order of their numbers.
    flights: Vec<Flight>,
    /// Only loads from this number on are joined: those before are closed.
    floor: u64,
}

/// A load under way.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    /// Numbers of loads grow in the order in which they begin.
    pub(super) number: u64,
    landing: watch::Receiver<Option<Landing>>,
    filled: Arc<Notify>,
}

/// What became of the wish for a load that began late enough.
#[derive(Debug)]
pub(super) enum Boarding {
    /// One is under way.
    Joined(Flight),
    /// None is: this one begins, and whoever got it does the work.
    Begun(Flight, Pilot),
    /// There are as many as there may be, all from too early. One of them.
    Full(Flight),
}

/// Who does the work of a load. Dropped without landing, those who wait are told that it was cut off.
#[derive(Debug)]
pub(super) struct Pilot {
    flights: Arc<Flights>,
    id: UserId,
    number: u64,
    landing: watch::Sender<Option<Landing>>,
    /// Told when it is heard that the cache has something new of the user, also if that was before anybody waited.
    pub(super) filled: Arc<Notify>,
}

impl Flights {
    /// The number that the next load will have.
    pub(super) fn next(&self) -> u64 {
        self.lock().next
    }

    /// Joins the newest load of a user, if its number is at least `floor` and it is not closed; begins one if there is none.
    pub(super) fn board(self: &Arc<Self>, id: &UserId, floor: u64) -> Boarding {
        let mut under_way = self.lock();
        let number = under_way.next;
        let loads = under_way.users.entry(id.clone()).or_default();
        if let Some(newest) = loads.flights.last() {
            if newest.number >= floor.max(loads.floor) {
                return Boarding::Joined(newest.clone());
            }
            if loads.flights.len() == LOADS_MAX {
                return Boarding::Full(newest.clone());
            }
        }
        let (landing, landed) = watch::channel(None);
        let filled = Arc::new(Notify::new());
        let flight = Flight { number, landing: landed, filled: Arc::clone(&filled) };
        loads.flights.push(flight.clone());
        under_way.next += 1;
        Boarding::Begun(flight, Pilot { flights: Arc::clone(self), id: id.clone(), number, landing, filled })
    }

    /// A write was made here: closes the loads that began before.
    pub(super) fn outdate(&self, id: &UserId) {
        let mut under_way = self.lock();
        let next = under_way.next;
        if let Some(loads) = under_way.users.get_mut(id) {
            loads.floor = next;
        }
    }

    fn close(&self, id: &UserId, number: u64) {
        if let Some(loads) = self.lock().users.get_mut(id) {
            loads.floor = loads.floor.max(number + 1);
        }
    }

    /// The cache has something new of a user: loads that wait for it look.
    pub(super) fn filled(&self, id: &UserId) {
        if let Some(loads) = self.lock().users.get(id) {
            for flight in &loads.flights {
                flight.filled.notify_one();
            }
        }
    }

    fn land(&self, id: &UserId, number: u64) {
        let mut under_way = self.lock();
        if let Some(loads) = under_way.users.get_mut(id) {
            loads.flights.retain(|flight| flight.number != number);
            if loads.flights.is_empty() {
                under_way.users.remove(id);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// Waits for what it brings.
    pub(super) async fn landed(mut self) -> Landing {
        match self.landing.wait_for(Option::is_some).await {
            Ok(landing) => landing.clone().unwrap_or(Err(Error::Aborted)),
            Err(_) => Err(Error::Aborted),
        }
    }
}

impl Pilot {
    /// Who is loaded.
    pub(super) fn id(&self) -> &UserId {
        &self.id
    }

    /// Nobody joins from now on.
    pub(super) fn close(&self) {
        self.flights.close(&self.id, self.number);
    }

    /// Tells everybody who waits what the load brought. Nobody joins it any more.
    pub(super) fn land(self, landing: Landing) {
        self.flights.land(&self.id, self.number);
        self.landing.send_replace(Some(landing));
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        self.flights.land(&self.id, self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Record, Source};

    fn ada() -> UserId {
        UserId::new("ada".to_owned())
    }

    fn read(version: i64) -> Read {
        let record = Record::Absent { version };
        Read { record, source: Source::Postgres, age: Duration::ZERO, stale: false }
    }

    fn begun(boarding: Boarding) -> (Flight, Pilot) {
        match boarding {
            Boarding::Begun(flight, pilot) => (flight, pilot),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn who_comes_while_a_load_is_under_way_gets_what_it_brings() {
        let flights = Arc::new(Flights::default());
        let (own, pilot) = begun(flights.board(&ada(), 0));
        let Boarding::Joined(joined) = flights.board(&ada(), 0) else { panic!() };

        pilot.land(Ok(read(7)));

        for flight in [own, joined] {
            assert_eq!(flight.landed().await.unwrap().record.version(), 7);
        }
        assert!(flights.lock().users.is_empty(), "nothing stays");
        begun(flights.board(&ada(), 0));
    }

    #[tokio::test]
    async fn who_wants_a_later_load_gets_the_next_and_there_are_never_more_than_two() {
        let flights = Arc::new(Flights::default());
        let (first, pilot) = begun(flights.board(&ada(), 0));
        let (second, _next) = begun(flights.board(&ada(), flights.next()));
        assert!(second.number > first.number);
        let Boarding::Joined(joined) = flights.board(&ada(), 0) else { panic!() };
        assert_eq!(joined.number, second.number, "who does not mind joins the newest");
        let Boarding::Full(_) = flights.board(&ada(), flights.next()) else { panic!() };

        pilot.land(Ok(read(1)));

        begun(flights.board(&ada(), flights.next()));
    }

    #[tokio::test]
    async fn a_load_that_began_before_a_write_made_here_is_not_joined_after_it() {
        let flights = Arc::new(Flights::default());
        let (_first, _pilot) = begun(flights.board(&ada(), 0));
        flights.outdate(&ada());

        let (second, _next) = begun(flights.board(&ada(), 0));

        let Boarding::Joined(joined) = flights.board(&ada(), 0) else { panic!() };
        assert_eq!(joined.number, second.number);
    }

    #[tokio::test]
    async fn a_closed_load_lands_for_those_who_joined_and_nobody_else_joins() {
        let flights = Arc::new(Flights::default());
        let (first, pilot) = begun(flights.board(&ada(), 0));
        pilot.close();
        let (_second, _next) = begun(flights.board(&ada(), 0));

        pilot.land(Ok(read(1)));

        assert_eq!(first.landed().await.unwrap().record.version(), 1);
        let Boarding::Joined(_) = flights.board(&ada(), 0) else { panic!("the next is not closed") };
    }

    #[tokio::test]
    async fn a_load_whose_worker_is_gone_tells_so_and_is_not_joined() {
        let flights = Arc::new(Flights::default());
        let (flight, pilot) = begun(flights.board(&ada(), 0));
        drop(pilot);

        assert!(matches!(flight.landed().await, Err(Error::Aborted)));
        begun(flights.board(&ada(), 0));
    }
}
