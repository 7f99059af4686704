//! What an instance does without being called: it ends what is over, looks after the places of its waiters, and hears of
//! offers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::call::granted;
use super::waiting::{Asked, Letter};
use super::{Error, Locks};
use crate::leases::{Acquire, Cancel, News, Place, REREAD_MAX};
use crate::model::LockName;

/// Things that one sweep ends at most: it takes well below a millisecond, and others wait for as long.
const SWEEP_MAX: usize = 200;
/// Waiters that are put back into queues in one round trip.
const RETURN_MAX: usize = 50;
/// How long one waits for others who put waiters back. As long as one answer of Redis may take: who does not get a turn by
/// then is better off without.
const TURN: Duration = Duration::from_millis(150);
/// How often a fresh start is tried, where it begins with all servers at the same time: for two seconds or more.
const FRESH_STARTS: usize = 20;
/// The pause after each.
const FRESH_PAUSE: Duration = Duration::from_millis(100);

impl Locks {
    /// One sweep: ends what is over, and says that this instance lives. Returns whether there is more to do.
    pub async fn sweep(&self) -> Result<bool, Error> {
        let sweep = |epoch| self.leases.sweep(epoch, &self.instance, SWEEP_MAX);
        let (epoch, swept) = self.in_epoch(Duration::ZERO, sweep).await?;
        self.numbers.quarantine(swept.quarantine);
        if swept.quarantine.is_zero() {
            self.epochs.settle(epoch);
            if self.waiting.any_out_of_queue(None) {
                self.waiting.ring();
            }
        }
        Ok(swept.more)
    }

    /// Looks after the places of all waiters: news may have been lost, and so may the places.
    pub async fn reread(&self) -> Result<(), Error> {
        let queued = self.waiting.in_queue();
        for chunk in queued.chunks(REREAD_MAX) {
            let places = || chunk.iter().map(|(asked, id)| (&asked.wish.name, id, &asked.call));
            let reread = |epoch| self.leases.reread(epoch, &self.instance, places());
            let (_, found) = self.in_epoch(Duration::ZERO, reread).await?;
            for ((asked, _), place) in chunk.iter().zip(found) {
                match place {
                    Place::Waiting => {}
                    Place::Missing => self.waiting.lost(&asked.call),
                    Place::Offered => drop(self.waiting.tell(&asked.call, Letter::Offered)),
                    Place::Taken => drop(self.waiting.tell(&asked.call, Letter::Over(Error::TakenOver))),
                }
            }
        }
        self.put_back(None).await
    }

    /// Waits at most `patience` until somebody asks for such a look. Returns whether anybody did.
    pub async fn asked_to_reread(&self, patience: Duration) -> bool {
        timeout(patience, self.waiting.rung()).await.is_ok()
    }

    /// Asks for such a look, now that news are heard: what was published before is lost.
    pub fn listens(&self) {
        self.waiting.ring();
    }

    /// Finds out the epoch before anything is served, on the promise that no client of an earlier run lives any more: if one
    /// has to be opened, it has no quarantine. Gives up soon where a server is away: then it is as it always is.
    pub async fn start_fresh(&self) {
        for _ in 0..FRESH_STARTS {
            if self.epochs.start_fresh().await {
                return;
            }
            sleep(FRESH_PAUSE).await;
        }
        tracing::warn!("no fresh start: a server is away");
    }

    /// Hears news of a call. One that has gone declines: somebody else is next.
    pub fn hear(&self, message: &[u8]) {
        let Some(news) = News::read(message) else {
            tracing::debug!("news of another release");
            return;
        };
        if !news.offered {
            self.waiting.tell(&news.call, Letter::Over(Error::TakenOver));
        } else if !self.waiting.tell(&news.call, Letter::Offered) {
            self.decline(news);
        }
    }

    /// Puts waiters that lost their places, of one lock or of all, back into the queue, in the order of their arrival here;
    /// hands them what is free by now. During a quarantine they stay where they are, and so they do if others do the same for
    /// too long.
    pub(super) async fn put_back(&self, name: Option<&LockName>) -> Result<(), Error> {
        loop {
            let Ok(_turn) = timeout(TURN, self.returning.lock()).await else { return Ok(()) };
            let lost = self.waiting.out_of_queue(name, RETURN_MAX);
            let Some(longest) = lost.iter().map(|asked| asked.wish.ttl).max() else { return Ok(()) };
            let wishes = || lost.iter().map(|asked| (&asked.id, &asked.call, &asked.wish));
            let sent = Instant::now();
            let acquire = |epoch| self.leases.acquire_again(epoch, &self.instance, wishes(), sent);
            let (_, answers) = self.in_epoch(longest, acquire).await?;
            fail::fail_point!("lock::acquired_again");
            for (asked, answer) in lost.iter().zip(answers) {
                if matches!(answer, Acquire::Quarantine(_)) {
                    return Ok(());
                }
                self.put_back_one(asked, answer, sent);
            }
        }
    }

    /// Notes what became of one of them; gives it up if its call has gone.
    fn put_back_one(&self, asked: &Arc<Asked>, answer: Acquire, sent: Instant) {
        if let Acquire::Waiting { id } = answer {
            // An offer that was heard of before this was noted can not have been claimed: it is looked for now.
            if !self.waiting.queued(&asked.call, id.clone()) || !self.waiting.tell(&asked.call, Letter::Offered) {
                self.give_up(Arc::clone(asked), Some(id), false);
            }
            return;
        }
        let granted = granted(answer, sent - asked.wish.arrived);
        let given = granted.as_ref().ok().map(|grant| grant.lease_id.clone());
        let heard = self.waiting.answer(&asked.call, granted.map_or_else(Letter::Over, Letter::Granted));
        if given.is_some() && !heard {
            self.give_up(Arc::clone(asked), given, true);
        }
    }

    /// Gives an offer up that nobody wants, so that it need not run out; a hold that has been claimed meanwhile stands.
    fn decline(&self, news: News) {
        let Ok(permit) = Arc::clone(&self.giving_up).try_acquire_owned() else { return };
        let locks = self.clone();
        let job = async move {
            let News { call, id, name, .. } = &news;
            let cancel = |epoch| locks.leases.cancel(epoch, name, (id, call), "", false);
            match locks.in_epoch(Duration::ZERO, cancel).await {
                Ok((_, Cancel::Left { .. })) => {
                    locks.numbers.declined.increment(1);
                    tracing::debug!("an offer to a call that has gone was declined");
                }
                Ok((_, Cancel::Nothing)) => {}
                Err(error) => tracing::debug!(%error, "an offer is not declined, and runs out"),
            }
            drop(permit);
        };
        self.jobs.spawn_on(job, &self.runtime);
    }
}
