//! The generator: starts the calls of a run on time and collects their outcomes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::call::{BenchCall, CallFailure, CallSlot};
use crate::schedule::{CallSchedule, release_due_calls};
use crate::spec::{LoadSpec, Pace};
use crate::tally::RunTally;

/// Number of tallies: few enough to merge, enough to keep lock contention low.
const TALLY_SHARDS: usize = 16;

/// The counts of a run in progress, warm-up included.
#[derive(Debug, Default)]
pub struct LiveCounts {
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl LiveCounts {
    /// Returns the number of calls that have succeeded so far.
    pub fn succeeded(&self) -> u64 {
        self.succeeded.load(Ordering::Relaxed)
    }

    /// Returns the number of calls that have failed so far.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    fn record(&self, outcome: &Result<u64, CallFailure>) {
        let counter = if outcome.is_ok() { &self.succeeded } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs the load to its end and returns the results.
pub async fn run(load: &LoadSpec, call: &BenchCall, counts: &Arc<LiveCounts>) -> RunTally {
    run_paced(load, call, counts, |schedule| {
        // A thread: tokio's timers have a resolution of 1 ms, which is long for a call.
        tokio::task::spawn_blocking(move || {
            Handle::current().block_on(release_due_calls(&schedule, async |moment| {
                thread::sleep(moment.saturating_duration_since(Instant::now()));
            }));
        })
    })
    .await
}

/// Runs the load; `pacer` releases the calls of an open loop.
async fn run_paced(
    load: &LoadSpec,
    call: &BenchCall,
    counts: &Arc<LiveCounts>,
    pacer: impl FnOnce(Arc<CallSchedule>) -> JoinHandle<()>,
) -> RunTally {
    let schedule = Arc::new(CallSchedule::new(load, Instant::now()));
    let tallies: Arc<[Mutex<RunTally>]> = (0..TALLY_SHARDS).map(|_| Mutex::new(RunTally::new(load.time))).collect();
    let mut callers = JoinSet::new();
    for caller in 0..load.in_flight {
        let (schedule, tallies) = (Arc::clone(&schedule), Arc::clone(&tallies));
        callers.spawn(run_caller(caller, schedule, tallies, Arc::clone(call), Arc::clone(counts)));
    }
    if let Pace::Rate(_) = load.pace {
        // The pacer ends by itself and cannot fail.
        let _ = pacer(Arc::clone(&schedule)).await;
    }
    callers.join_all().await;

    let mut all = RunTally::new(load.time);
    for tally in tallies.iter() {
        all.add(&tally.lock());
    }
    for (intended, ended) in schedule.unsent() {
        all.record_unsent(ended.saturating_duration_since(intended));
    }
    all
}

/// Runs one caller until the schedule has no more calls.
async fn run_caller(
    caller: usize,
    schedule: Arc<CallSchedule>,
    tallies: Arc<[Mutex<RunTally>]>,
    call: BenchCall,
    counts: Arc<LiveCounts>,
) {
    while let Some((number, intended)) = schedule.next_call().await {
        let begun = Instant::now();
        let outcome = call(CallSlot { number, caller }).await;
        let ended = Instant::now();
        counts.record(&outcome);
        let mut tally = tallies[caller % TALLY_SHARDS].lock();
        if schedule.is_measured(intended) {
            tally.record_call(intended, begun, ended, &outcome);
        }
        if schedule.is_measured(ended) {
            tally.record_response(&outcome);
        }
    }
}

#[cfg(test)]
mod tests;
