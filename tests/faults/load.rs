//! Load generators: a closed loop that measures capacity, and an open loop in which each call
//! starts at its intended time, independent of earlier calls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::workload::{CallError, Workload};

/// Pause of a closed-loop caller after a failed call.
const FAILURE_PAUSE: Duration = Duration::from_millis(10);
/// Interval at which the open loop starts the calls that are due.
const TICK: Duration = Duration::from_millis(2);
/// Bound of calls in flight: more mean that some limit is missing.
const IN_FLIGHT_MAX: usize = 20_000;
/// Longest time until the last calls end.
const LAST_CALLS_MAX: Duration = Duration::from_secs(90);

/// A call of the open loop that has ended.
#[derive(Debug)]
pub(crate) struct CallOutcome {
    /// Intended start time.
    pub(crate) intended: Instant,
    pub(crate) ended: Instant,
    /// The error, if the call failed.
    pub(crate) error: Option<CallError>,
}

impl CallOutcome {
    /// Returns the time from the intended start to the end.
    pub(crate) fn latency(&self) -> Duration {
        self.ended - self.intended
    }
}

/// A workload whose calls are numbered from 0 on.
pub(crate) struct NumberedCalls<W> {
    pub(crate) workload: W,
    next: AtomicU64,
}

impl<W: Workload> NumberedCalls<W> {
    pub(crate) fn new(workload: W) -> Self {
        Self { workload, next: AtomicU64::new(0) }
    }

    async fn call_next(&self) -> Result<(), CallError> {
        self.workload.call(self.next.fetch_add(1, Ordering::Relaxed)).await
    }

    /// Measures the successful calls per second of a closed loop with this many callers.
    pub(crate) async fn capacity(self: &Arc<Self>, callers: usize, time: Duration) -> f64 {
        let end = Instant::now() + time;
        let callers = (0..callers).map(|_| {
            let this = Arc::clone(self);
            tokio::spawn(async move {
                let mut succeeded = 0_u32;
                while Instant::now() < end {
                    match this.call_next().await {
                        Ok(()) => succeeded += 1,
                        // If failures persist, the drill reports them.
                        Err(_) => sleep(FAILURE_PAUSE).await,
                    }
                }
                succeeded
            })
        });
        let mut succeeded = 0;
        for caller in callers.collect::<Vec<_>>() {
            succeeded += caller.await.unwrap();
        }
        f64::from(succeeded) / time.as_secs_f64()
    }
}

/// A running open loop.
pub(crate) struct OpenLoop {
    outcomes: Arc<Mutex<Vec<CallOutcome>>>,
    stop: CancellationToken,
    pacer: JoinHandle<()>,
    in_flight: TaskTracker,
}

impl OpenLoop {
    /// Starts `rate` calls per second, evenly spaced.
    pub(crate) fn start<W: Workload>(calls: &Arc<NumberedCalls<W>>, rate: f64) -> Self {
        let outcomes: Arc<Mutex<Vec<CallOutcome>>> = Arc::default();
        let (stop, in_flight) = (CancellationToken::new(), TaskTracker::new());
        let pacer = {
            let (calls, outcomes) = (Arc::clone(calls), Arc::clone(&outcomes));
            let (stop, in_flight) = (stop.clone(), in_flight.clone());
            tokio::spawn(async move {
                let begin = Instant::now();
                let mut ticks = interval(TICK);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
                for number in 0_u32.. {
                    let intended = begin + Duration::from_secs_f64(f64::from(number) / rate);
                    while intended > Instant::now() {
                        if stop.run_until_cancelled(ticks.tick()).await.is_none() {
                            return;
                        }
                    }
                    assert!(in_flight.len() < IN_FLIGHT_MAX, "{} calls to {} are in flight", in_flight.len(), W::NAME);
                    let (calls, outcomes) = (Arc::clone(&calls), Arc::clone(&outcomes));
                    in_flight.spawn(async move {
                        let error = calls.call_next().await.err();
                        outcomes.lock().unwrap().push(CallOutcome { intended, ended: Instant::now(), error });
                    });
                }
            })
        };
        Self { outcomes, stop, pacer, in_flight }
    }

    /// Stops the loop, waits until the last call has ended, and returns the outcomes of all calls.
    pub(crate) async fn stop(self) -> Vec<CallOutcome> {
        self.stop.cancel();
        self.pacer.await.unwrap();
        self.in_flight.close();
        timeout(LAST_CALLS_MAX, self.in_flight.wait()).await.expect("every call ends");
        std::mem::take(&mut self.outcomes.lock().unwrap())
    }
}
