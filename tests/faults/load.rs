//! Load in an open loop: every call has a moment at which it is due, and is sent then, whatever became of those before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::work::{Refused, Work};

/// The pause of a caller who was refused meanwhile.
const PAUSE: Duration = Duration::from_millis(10);
/// How often it is looked which calls are due.
const TICK: Duration = Duration::from_millis(2);
/// More calls than this under way at once mean that something has no limit.
const UNDER_WAY_MAX: usize = 20_000;
/// How long the last calls may take to end.
const LAST: Duration = Duration::from_secs(90);

/// One call.
#[derive(Debug)]
pub(crate) struct Call {
    /// When it was due.
    pub(crate) due: Instant,
    /// When it ended.
    pub(crate) ended: Instant,
    /// Why it was refused, if it was.
    pub(crate) refused: Option<Refused>,
}

impl Call {
    /// How long it took from the moment at which it was due.
    pub(crate) fn took(&self) -> Duration {
        self.ended - self.due
    }
}

/// Work with a number for each of its calls, from the first to the last.
pub(crate) struct Numbered<W> {
    pub(crate) work: W,
    next: AtomicU64,
}

impl<W: Work> Numbered<W> {
    pub(crate) fn new(work: W) -> Self {
        Self { work, next: AtomicU64::new(0) }
    }

    async fn once(&self) -> Result<(), Refused> {
        self.work.once(self.next.fetch_add(1, Ordering::Relaxed)).await
    }

    /// Measures, in a closed loop with so many callers, how many calls are done in a second.
    pub(crate) async fn capacity(self: &Arc<Self>, callers: usize, time: Duration) -> f64 {
        let end = Instant::now() + time;
        let callers = (0..callers).map(|_| {
            let this = Arc::clone(self);
            tokio::spawn(async move {
                let mut done = 0_u32;
                while Instant::now() < end {
                    match this.once().await {
                        Ok(()) => done += 1,
                        Err(_) => sleep(PAUSE).await, // the drill complains of it if that goes on
                    }
                }
                done
            })
        });
        let mut done = 0;
        for caller in callers.collect::<Vec<_>>() {
            done += caller.await.unwrap();
        }
        f64::from(done) / time.as_secs_f64()
    }
}

/// Calls that are sent at a rate, until it is ended.
pub(crate) struct Load {
    calls: Arc<Mutex<Vec<Call>>>,
    over: CancellationToken,
    pacing: JoinHandle<()>,
    under_way: TaskTracker,
}

impl Load {
    /// Begins, with `rate` calls a second.
    pub(crate) fn start<W: Work>(work: &Arc<Numbered<W>>, rate: f64) -> Self {
        let load = Self {
            calls: Arc::default(),
            over: CancellationToken::new(),
            pacing: tokio::spawn(async {}),
            under_way: TaskTracker::new(),
        };
        let (work, calls, over, under_way) =
            (Arc::clone(work), Arc::clone(&load.calls), load.over.clone(), load.under_way.clone());
        let pacing = tokio::spawn(async move {
            let begun = Instant::now();
            let mut ticks = interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            for number in 0_u32.. {
                let due = begun + Duration::from_secs_f64(f64::from(number) / rate);
                while due > Instant::now() {
                    if over.run_until_cancelled(ticks.tick()).await.is_none() {
                        return;
                    }
                }
                assert!(under_way.len() < UNDER_WAY_MAX, "{} calls of {} are under way", under_way.len(), W::NAME);
                let (work, calls) = (Arc::clone(&work), Arc::clone(&calls));
                under_way.spawn(async move {
                    let refused = work.once().await.err();
                    calls.lock().unwrap().push(Call { due, ended: Instant::now(), refused });
                });
            }
        });
        Self { pacing, ..load }
    }

    /// Ends it, and returns all calls when the last has ended.
    pub(crate) async fn end(self) -> Vec<Call> {
        self.over.cancel();
        self.pacing.await.unwrap();
        self.under_way.close();
        timeout(LAST, self.under_way.wait()).await.expect("every call ends");
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}
