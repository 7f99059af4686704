//! A load generator that does not leave out what it should have seen: what `tidings bench` and `make bench` measure with.
//!
//! In an *open loop* calls begin at moments that were set before, whatever became of those before them, and their latency is
//! counted from these moments. A server that stands still for a second is then seen by every call that should have begun in
//! that second; a generator that waits for answers before it sends on would have seen it once ("coordinated omission", Gil
//! Tene). In a *closed loop* each caller sends its next call when its last was answered: that measures how much can be
//! done, and flatters latencies.
//!
//! `tickets` says when calls begin, `tally` counts what became of them.

mod fanout;
mod tally;
mod tickets;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

pub use self::fanout::Fanout;
pub use self::tally::{Fault, Latency, Tally};
use self::tickets::{Tickets, pace};

/// Callers that share a tally: few enough to merge, enough that they seldom meet.
const TALLIES: usize = 16;

/// When calls begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Open loop: so many a second, at even distances.
    Rate(f64),
    /// Closed loop: each as soon as its caller has nothing else to do.
    Closed,
}

/// How much is called, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// When calls begin.
    pub pace: Pace,
    /// How many callers there are: the most calls under way at once. In an open loop a call that finds all of them busy
    /// begins late, and its latency is counted from when it should have begun.
    pub in_flight: usize,
    /// How long is called before anything is counted.
    pub warm_up: Duration,
    /// How long is counted.
    pub time: Duration,
    /// How long after the end calls that are late may still begin; what has not begun then is counted as unsent.
    pub grace: Duration,
}

/// Whose turn it is to call.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// The number of the call, from 0 on; no two calls of a run have the same.
    pub number: u64,
    /// The caller, below [`Load::in_flight`]; it has one call under way at a time.
    pub caller: usize,
}

/// What is called. Says how many things it did: 1, or as many as a batch has.
pub type Call = Arc<dyn Fn(Turn) -> BoxFuture<'static, Result<u64, Fault>> + Send + Sync>;

/// What can be seen of a run while it is under way.
#[derive(Debug, Default)]
pub struct Seen {
    answered: AtomicU64,
    failed: AtomicU64,
}

impl Seen {
    /// How many calls were answered well so far, those of the warm-up included.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// How many were not.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    fn see(&self, answer: &Result<u64, Fault>) {
        let count = if answer.is_ok() { &self.answered } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Calls as `load` says, to the end, and counts.
pub async fn run(load: &Load, call: &Call, seen: &Arc<Seen>) -> Tally {
    run_paced(load, call, seen, |tickets| {
        // A thread of its own, because the timers of tokio are a millisecond coarse, which is long for a call.
        tokio::task::spawn_blocking(move || {
            Handle::current().block_on(pace(&tickets, async |moment| {
                thread::sleep(moment.saturating_duration_since(Instant::now()));
            }));
        })
    })
    .await
}

/// The same, where `pacer` hands the tickets of an open loop out.
async fn run_paced(
    load: &Load,
    call: &Call,
    seen: &Arc<Seen>,
    pacer: impl FnOnce(Arc<Tickets>) -> JoinHandle<()>,
) -> Tally {
    let tickets = Arc::new(Tickets::new(load, Instant::now()));
    let tallies: Arc<[Mutex<Tally>]> = (0..TALLIES).map(|_| Mutex::new(Tally::new(load.time))).collect();
    let mut callers = JoinSet::new();
    for caller in 0..load.in_flight {
        let (tickets, tallies) = (Arc::clone(&tickets), Arc::clone(&tallies));
        callers.spawn(call_on(caller, tickets, tallies, Arc::clone(call), Arc::clone(seen)));
    }
    if let Pace::Rate(_) = load.pace {
        // It ends by itself, and nothing of it can fail.
        let _ = pacer(Arc::clone(&tickets)).await;
    }
    callers.join_all().await;

    let mut all = Tally::new(load.time);
    for tally in tallies.iter() {
        all.add(&tally.lock().unwrap_or_else(PoisonError::into_inner));
    }
    for (intended, ended) in tickets.unsent() {
        all.unsent(ended.saturating_duration_since(intended));
    }
    all
}

/// One caller: takes tickets and calls, until there are none.
async fn call_on(caller: usize, tickets: Arc<Tickets>, tallies: Arc<[Mutex<Tally>]>, call: Call, seen: Arc<Seen>) {
    while let Some((number, intended)) = tickets.take().await {
        let begun = Instant::now();
        let answer = call(Turn { number, caller }).await;
        let ended = Instant::now();
        seen.see(&answer);
        let mut tally = tallies[caller % TALLIES].lock().unwrap_or_else(PoisonError::into_inner);
        if tickets.counted(intended) {
            tally.call(intended, begun, ended, &answer);
        }
        if tickets.counted(ended) {
            tally.arrival(&answer);
        }
    }
}

#[cfg(test)]
mod tests;
