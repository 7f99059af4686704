//! One AcquireLock, from its arrival to its end.
//!
//! However it ends, what it has in Redis and did not give to its caller is given up: by itself, or by a task of its own when
//! its caller went away.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::waiting::{Asked, Letter, Seat};
use super::{Error, Locks};
use crate::leases::{self, Acquire, Cancel, Claim};
use crate::model::{Acquired, CallId, Grant, LeaseId, Wish};

/// A call under way.
pub(super) struct Call<'a> {
    locks: &'a Locks,
    asked: Arc<Asked>,
    /// Only who wants to wait has one.
    seat: Option<Seat>,
    /// Whether there may be something of it in Redis that nobody wants.
    doubtful: bool,
}

impl<'a> Call<'a> {
    /// Takes a wish in.
    ///
    /// # Errors
    /// [`Error::Overloaded`].
    pub(super) fn begin(locks: &'a Locks, wish: Wish) -> Result<Self, Error> {
        let waits = wish.until.is_some();
        let asked = Arc::new(Asked { call: CallId::random(), id: LeaseId::random(), wish });
        let seat = waits.then(|| locks.waiting.enter(&asked)).transpose()?;
        Ok(Self { locks, asked, seat, doubtful: false })
    }

    /// Runs it to its end.
    pub(super) async fn run(mut self) -> Result<Acquired, Error> {
        self.doubtful = true;
        let ended = self.ask().await;
        if let Ok(Acquired::Granted(_)) = &ended {
            fail::fail_point!("lock::granted");
            // A caller who has gone by now is noticed here at the latest, and its grant is given up.
            yield_now().await;
        }
        self.doubtful = match &ended {
            Ok(_) => false,
            Err(error) => error.leaves_doubt() || matches!(error, Error::Draining),
        };
        ended
    }

    /// What few calls come to is in boxes: without them, each call would be a future of several kilobytes.
    async fn ask(&self) -> Result<Acquired, Error> {
        let Asked { call, id, wish } = &*self.asked;
        // Who was here before and lost its place with Redis goes first.
        if self.locks.waiting.any_out_of_queue(Some(&wish.name)) {
            Box::pin(self.locks.put_back(Some(&wish.name))).await?;
        }
        let begun = Instant::now();
        let acquire = async |epoch| {
            let answer = self.locks.leases.acquire(epoch, &self.locks.instance, (id, call), wish, begun).await;
            fail::fail_point!("lock::acquired");
            answer
        };
        let (_, answer) = self.locks.in_epoch(wish.ttl, acquire).await?;
        match (answer, &self.seat) {
            (Acquire::Held { holder, waiting }, None) => Ok(Acquired::Held { holder, waiting }),
            (Acquire::Waiting { id }, Some(seat)) => {
                self.locks.waiting.queued(call, id);
                Box::pin(self.wait(seat)).await
            }
            (Acquire::Quarantine(_), Some(seat)) => {
                self.locks.waiting.lost(call);
                Box::pin(self.wait(seat)).await
            }
            (answer, _) => granted(answer, begun - wish.arrived).map(Acquired::Granted),
        }
    }

    /// Waits for the lock: in the queue, or for a place in it.
    async fn wait(&self, seat: &Seat) -> Result<Acquired, Error> {
        let until = self.asked.wish.until.unwrap_or(self.asked.wish.arrived);
        loop {
            let letter = tokio::select! {
                biased;
                letter = seat.letter() => letter,
                () = self.locks.draining.cancelled() => return Err(Error::Draining),
                () = sleep_until(until) => return self.time_out(seat).await,
            };
            let granted = match letter {
                Letter::Offered => self.claim(seat).await?,
                Letter::Granted(grant) => Some(grant),
                Letter::Over(error) => return Err(error),
            };
            if let Some(grant) = granted {
                return Ok(Acquired::Granted(grant));
            }
        }
    }

    /// Claims what was offered. What became of it without an answer, the next look after all places will tell.
    async fn claim(&self, seat: &Seat) -> Result<Option<Grant>, Error> {
        let Some(id) = seat.place() else { return Ok(None) };
        let Asked { call, wish, .. } = &*self.asked;
        let begun = Instant::now();
        let claim = self.locks.in_epoch(Duration::ZERO, |epoch| self.locks.leases.claim(epoch, &wish.name, &id, call));
        match claim.await {
            Ok((_, Claim::Claimed { token, lease })) => {
                let waited = begun - wish.arrived;
                Ok(Some(Grant { token, lease_id: id, lease, waited, deduplicated: false }))
            }
            Ok((_, Claim::Waiting)) => Ok(None),
            Ok((_, Claim::Taken)) => Err(Error::TakenOver),
            Ok((_, Claim::Gone)) => {
                self.locks.waiting.lost(call);
                self.locks.waiting.ring();
                Ok(None)
            }
            Err(error) => {
                tracing::debug!(%error, "an offer is not claimed yet");
                Ok(None)
            }
        }
    }

    /// Gives the place in the queue up, and says which it was.
    async fn time_out(&self, seat: &Seat) -> Result<Acquired, Error> {
        let place = seat.place();
        match seat.leave() {
            Some(Letter::Granted(grant)) => return Ok(Acquired::Granted(grant)),
            Some(Letter::Over(error)) => return Err(error),
            Some(Letter::Offered) | None => {}
        }
        let left = match &place {
            Some(id) => self.locks.leave(&self.asked, id, true).await.map(Some),
            None => Ok(None), // it may be on its way back into the queue
        };
        match left {
            Ok(Some(Cancel::Left { position, holder })) => return Ok(Acquired::TimedOut { holder, position }),
            Ok(Some(Cancel::Nothing)) => {}
            Ok(None) | Err(_) => self.locks.give_up(Arc::clone(&self.asked), place, true),
        }
        Ok(Acquired::TimedOut { holder: None, position: 0 })
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let place = self.seat.take().and_then(|seat| {
            let place = seat.place();
            seat.leave(); // before anything is given up, so that nobody puts it back
            place
        });
        if self.doubtful {
            self.locks.give_up(Arc::clone(&self.asked), place, true);
        }
    }
}

/// The grant that an answer is, or why it is none. `waited` is how long the request had been here.
pub(super) fn granted(answer: Acquire, waited: Duration) -> Result<Grant, Error> {
    match answer {
        Acquire::Granted { id, token, lease, deduplicated } => {
            Ok(Grant { token, lease_id: id, lease, waited, deduplicated })
        }
        Acquire::Quarantine(left) => Err(Error::Quarantine(left)),
        Acquire::LeaseOver(token) => Err(Error::LeaseOver(token)),
        Acquire::Taken => Err(Error::TakenOver),
        Acquire::Reused => Err(Error::RequestIdReused),
        Acquire::QueueFull => Err(Error::QueueFull),
        // Nobody is queued who does not want to wait, and nobody who does is told that it is held.
        Acquire::Waiting { .. } | Acquire::Held { .. } => Err(Error::State(leases::Error::Malformed)),
    }
}
