//! Who waits at this instance, in order of arrival.
//!
//! A call is registered before anything is sent for it, so that no news of it can come too early. Where its place is, in the
//! queue or lost with Redis, is known here; what became of it is put into its letter box. Bounded: more calls are refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Error;
use crate::model::{CallId, Grant, LeaseId, LockName, Wish};
use crate::numbers::Numbers;

/// The calls that wait.
#[derive(Debug)]
pub(super) struct Waiting {
    max: usize,
    all: Mutex<All>,
    /// Rung when a place was lost, or may have been.
    bell: Notify,
    numbers: Arc<Numbers>,
}

#[derive(Debug, Default)]
struct All {
    /// By number of arrival.
    waiters: BTreeMap<u64, Waiter>,
    numbers: HashMap<CallId, u64>,
    /// Those that have lost their place.
    lost: BTreeSet<u64>,
    /// The same, by lock.
    lost_of: BTreeSet<(LockName, u64)>,
    arrivals: u64,
}

#[derive(Debug)]
struct Waiter {
    call: Arc<Asked>,
    place: Place,
    letters: Arc<Letters>,
}

/// A call, and what it asked for.
#[derive(Debug)]
pub(super) struct Asked {
    /// The call.
    pub(super) call: CallId,
    /// Its lease, unless it is an earlier call's.
    pub(super) id: LeaseId,
    /// What it wants.
    pub(super) wish: Wish,
}

/// Where a call is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// It asks for its place itself.
    Asking,
    /// In the queue, under this id.
    Queued(LeaseId),
    /// Nowhere: Redis lost it, or grants nobody anything.
    Lost,
}

/// What a call hears while it waits.
#[derive(Debug)]
pub(super) enum Letter {
    /// There is an offer to claim.
    Offered,
    /// It was granted the lock when its place was put back.
    Granted(Grant),
    /// It is over.
    Over(Error),
}

#[derive(Debug, Default)]
struct Letters {
    last: Mutex<Option<Letter>>,
    came: Notify,
}

impl Letters {
    /// Puts a letter in. An offer never covers what is final.
    fn put(&self, letter: Letter) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none() || !matches!(letter, Letter::Offered) {
            *last = Some(letter);
        }
        drop(last);
        self.came.notify_one();
    }

    fn take(&self) -> Option<Letter> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Waiting {
    /// Nobody waits; at most `max` can.
    pub(super) fn new(max: usize, numbers: Arc<Numbers>) -> Self {
        Self { max, all: Mutex::default(), bell: Notify::new(), numbers }
    }

    /// Registers a call.
    ///
    /// # Errors
    /// [`Error::Overloaded`].
    pub(super) fn enter(self: &Arc<Self>, call: &Arc<Asked>) -> Result<Seat, Error> {
        let mut all = self.all();
        if all.waiters.len() >= self.max {
            return Err(Error::Overloaded);
        }
        all.arrivals += 1;
        let number = all.arrivals;
        let letters = Arc::new(Letters::default());
        let waiter = Waiter { call: Arc::clone(call), place: Place::Asking, letters: Arc::clone(&letters) };
        all.waiters.insert(number, waiter);
        all.numbers.insert(call.call.clone(), number);
        self.numbers.waiters.increment(1);
        Ok(Seat { waiting: Arc::clone(self), number, letters })
    }

    /// Tells a call something. Returns false if it waits no more.
    pub(super) fn tell(&self, call: &CallId, letter: Letter) -> bool {
        let all = self.all();
        let waiter = all.numbers.get(call).and_then(|number| all.waiters.get(number));
        waiter.is_some_and(|waiter| {
            waiter.letters.put(letter);
            true
        })
    }

    /// Tells a call what is final, and does no more for it. Returns false if it waits no more.
    pub(super) fn answer(&self, call: &CallId, letter: Letter) -> bool {
        self.all().put(call, Place::Asking) && self.tell(call, letter)
    }

    /// Notes that a call has a place in the queue. Returns false if it waits no more.
    pub(super) fn queued(&self, call: &CallId, id: LeaseId) -> bool {
        self.all().put(call, Place::Queued(id))
    }

    /// Notes that a call has lost its place, if it had one.
    pub(super) fn lost(&self, call: &CallId) {
        self.all().put(call, Place::Lost);
    }

    /// The calls in the queue with their places, in order of arrival.
    pub(super) fn in_queue(&self) -> Vec<(Arc<Asked>, LeaseId)> {
        let all = self.all();
        let queued = all.waiters.values().filter_map(|waiter| match &waiter.place {
            Place::Queued(id) => Some((Arc::clone(&waiter.call), id.clone())),
            Place::Asking | Place::Lost => None,
        });
        queued.collect()
    }

    /// The first `limit` calls that have lost their places, in order of arrival; of one lock, or of all.
    pub(super) fn out_of_queue(&self, name: Option<&LockName>, limit: usize) -> Vec<Arc<Asked>> {
        let all = self.all();
        let calls = |number: &u64| all.waiters.get(number).map(|waiter| Arc::clone(&waiter.call));
        match name {
            Some(name) => all.lost_of(name).take(limit).filter_map(calls).collect(),
            None => all.lost.iter().take(limit).filter_map(calls).collect(),
        }
    }

    /// Whether a call that waits for this lock, or for any, has lost its place.
    pub(super) fn any_out_of_queue(&self, name: Option<&LockName>) -> bool {
        let all = self.all();
        !all.lost.is_empty() && name.is_none_or(|name| all.lost_of(name).next().is_some())
    }

    /// Asks for a look after all places, soon.
    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Waits until somebody asks for that.
    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Ends the registration of a call, if it has not ended.
    fn forget(&self, number: u64) {
        if self.all().remove(number) {
            self.numbers.waiters.decrement(1);
        }
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    fn lost_of(&self, name: &LockName) -> impl Iterator<Item = &u64> {
        self.lost_of.range((name.clone(), 0)..=(name.clone(), u64::MAX)).map(|(_, number)| number)
    }

    fn put(&mut self, call: &CallId, place: Place) -> bool {
        let Some(&number) = self.numbers.get(call) else { return false };
        let Some(waiter) = self.waiters.get_mut(&number) else { return false };
        let name = waiter.call.wish.name.clone();
        if place == Place::Lost {
            self.lost.insert(number);
            self.lost_of.insert((name, number));
        } else if waiter.place == Place::Lost {
            self.lost.remove(&number);
            self.lost_of.remove(&(name, number));
        }
        waiter.place = place;
        true
    }

    fn remove(&mut self, number: u64) -> bool {
        let Some(waiter) = self.waiters.remove(&number) else { return false };
        self.numbers.remove(&waiter.call.call);
        self.lost.remove(&number);
        self.lost_of.remove(&(waiter.call.wish.name.clone(), number));
        true
    }
}

/// A registered call; dropping it ends that.
#[derive(Debug)]
pub(super) struct Seat {
    waiting: Arc<Waiting>,
    number: u64,
    letters: Arc<Letters>,
}

impl Seat {
    /// The next letter. Loses none when it is dropped.
    pub(super) async fn letter(&self) -> Letter {
        loop {
            if let Some(letter) = self.letters.take() {
                return letter;
            }
            self.letters.came.notified().await;
        }
    }

    /// The place in the queue, if there is one.
    pub(super) fn place(&self) -> Option<LeaseId> {
        match &self.waiting.all().waiters.get(&self.number)?.place {
            Place::Queued(id) => Some(id.clone()),
            Place::Asking | Place::Lost => None,
        }
    }

    /// Ends the registration; from now on nothing is done for the call. Returns what it has not read.
    pub(super) fn leave(&self) -> Option<Letter> {
        self.waiting.forget(self.number);
        self.letters.take()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.waiting.forget(self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    fn asked(name: &str) -> Arc<Asked> {
        let wish = Wish {
            name: LockName::new(name.to_owned()),
            owner: "ada".to_owned(),
            ttl: Duration::from_secs(1),
            request: None,
            arrived: Instant::now(),
            until: None,
        };
        Arc::new(Asked { call: CallId::random(), id: LeaseId::random(), wish })
    }

    #[test]
    fn more_calls_than_may_wait_are_refused_until_one_has_gone() {
        let waiting = Arc::new(Waiting::new(2, Numbers::new()));
        let (_one, other) = (waiting.enter(&asked("a")).unwrap(), waiting.enter(&asked("a")).unwrap());

        assert!(matches!(waiting.enter(&asked("a")), Err(Error::Overloaded)));
        drop(other);
        waiting.enter(&asked("a")).unwrap();
    }

    #[test]
    fn lost_places_are_told_in_order_of_arrival() {
        let waiting = Arc::new(Waiting::new(9, Numbers::new()));
        let calls = ["b", "a", "b", "a"].map(asked);
        let seats: Vec<_> = calls.iter().map(|call| waiting.enter(call).unwrap()).collect();
        for call in calls.iter().rev() {
            waiting.lost(&call.call);
        }
        let order = |name: Option<&str>, limit| {
            let name = name.map(|name| LockName::new(name.to_owned()));
            let lost = waiting.out_of_queue(name.as_ref(), limit);
            lost.iter().map(|one| calls.iter().position(|call| call.call == one.call).unwrap()).collect::<Vec<_>>()
        };

        assert_eq!((order(None, 9), order(None, 2)), (vec![0, 1, 2, 3], vec![0, 1]));
        assert_eq!(order(Some("b"), 9), [0, 2]);
        drop(seats);
        assert!(!waiting.any_out_of_queue(None));
    }

    #[tokio::test]
    async fn an_offer_covers_no_letter_that_is_final() {
        let waiting = Arc::new(Waiting::new(1, Numbers::new()));
        let call = asked("a");
        let seat = waiting.enter(&call).unwrap();

        assert!(waiting.tell(&call.call, Letter::Over(Error::TakenOver)));
        assert!(waiting.tell(&call.call, Letter::Offered));
        assert!(matches!(seat.letter().await, Letter::Over(Error::TakenOver)));
        assert!(seat.leave().is_none());
        assert!(!waiting.tell(&call.call, Letter::Offered), "it waits no more");
    }
}
