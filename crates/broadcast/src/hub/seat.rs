//! How a stream learns which of its channels have something for it.
//!
//! A stream has one [`Bell`] and a [`Seat`] at each of its channels. A seat that is rung puts its number into the
//! bell's queue, once, until the stream takes it out: so quiet channels cost nothing, busy ones take turns, and the
//! queue is never longer than there are seats.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use futures_util::task::AtomicWaker;

use super::lock;

/// Wakes one stream.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Mutex<VecDeque<usize>>,
    waker: AtomicWaker,
}

impl Bell {
    /// The number of a seat that was rung, if there is one; the one that waits longest.
    pub(super) fn answer(&self) -> Option<usize> {
        lock(&self.rung).pop_front()
    }

    /// Waits until a seat is rung. Only one may wait.
    pub(super) async fn rings(&self) {
        poll_fn(|context| {
            self.waker.register(context.waker());
            if lock(&self.rung).is_empty() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }
}

/// The place of one stream at one channel.
#[derive(Debug)]
pub(super) struct Seat {
    bell: Arc<Bell>,
    number: usize,
    rung: AtomicBool,
}

impl Seat {
    pub(super) fn new(bell: &Arc<Bell>, number: usize) -> Arc<Self> {
        Arc::new(Self { bell: Arc::clone(bell), number, rung: AtomicBool::new(false) })
    }

    /// Says that the channel has something for the stream.
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            lock(&self.bell.rung).push_back(self.number);
            self.bell.waker.wake();
        }
    }

    /// Says that the stream is about to look: what comes from now on rings again.
    pub(super) fn heed(&self) {
        self.rung.store(false, Ordering::Release);
    }
}

/// The seats of one channel. Each keeps its place, so that giving one up costs the same however many there are.
#[derive(Debug, Default)]
pub(super) struct Seats {
    places: Vec<Option<Arc<Seat>>>,
    free: Vec<usize>,
}

impl Seats {
    /// Takes a place, and returns which.
    pub(super) fn add(&mut self, seat: Arc<Seat>) -> usize {
        if let Some(place) = self.free.pop() {
            self.places[place] = Some(seat);
            return place;
        }
        self.places.push(Some(seat));
        self.places.len() - 1
    }

    /// Gives a place up.
    pub(super) fn remove(&mut self, place: usize) {
        if self.places[place].take().is_some() {
            self.free.push(place);
        }
    }

    /// How many are taken.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Rings all.
    pub(super) fn ring(&self) {
        for seat in self.places.iter().flatten() {
            seat.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_that_is_rung_often_is_queued_once() {
        let bell = Arc::new(Bell::default());
        let (first, second) = (Seat::new(&bell, 0), Seat::new(&bell, 1));

        first.ring();
        second.ring();
        first.ring();

        assert_eq!((bell.answer(), bell.answer(), bell.answer()), (Some(0), Some(1), None));
        first.ring();
        assert_eq!(bell.answer(), None, "it was not heeded yet");
        first.heed();
        first.ring();
        assert_eq!(bell.answer(), Some(0));
    }

    #[test]
    fn a_place_that_was_given_up_is_taken_again_and_others_keep_theirs() {
        let bell = Arc::new(Bell::default());
        let mut seats = Seats::default();
        let places: Vec<_> = (0..3).map(|number| seats.add(Seat::new(&bell, number))).collect();

        seats.remove(places[1]);
        seats.remove(places[1]);
        assert_eq!(seats.len(), 2);
        assert_eq!(seats.add(Seat::new(&bell, 7)), places[1]);

        seats.ring();
        let rung: Vec<_> = std::iter::from_fn(|| bell.answer()).collect();
        assert_eq!(rung, [0, 7, 2]);
    }
}
