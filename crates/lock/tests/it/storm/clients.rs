//! Clients of the storm: some wait, retry, disconnect, or hold a lock until their deadline.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt as _;
use tidings_proto::lock::AcquireLockRequest;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::NAMES;
use super::checker::HoldInterval;
use crate::support::GRACE;
use crate::support::client::{AcquireResult, HeldLock, LockClient, named, once, waiting_for};

fn chance(percent: u32) -> bool {
    rand::rng().random_range(0..100) < percent
}

fn millis(range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rand::rng().random_range(range))
}

/// Acquires and releases until `stop`, and records the intervals of its holds.
pub(super) async fn work(
    number: usize,
    instances: [LockClient; 3],
    history: Arc<Mutex<Vec<HoldInterval>>>,
    stop: CancellationToken,
) {
    let mut round = 0;
    while !stop.is_cancelled() {
        round += 1;
        let mut request = once(NAMES[rand::rng().random_range(0..NAMES.len())], &format!("client-{number}"));
        if chance(75) {
            request = waiting_for(&request.name, &request.owner, millis(100..4000));
        }
        if chance(60) {
            request = named(&format!("{number}-{round}"), request);
        }
        match acquire(&instances, request).await {
            Some(hold) => hold_and_release(&instances, hold, &history).await,
            None => sleep(millis(1..50)).await,
        }
    }
}

/// Tries random instances. Only a request with a request id is retried; any other is a new request.
async fn acquire(instances: &[LockClient; 3], request: AcquireLockRequest) -> Option<HeldLock> {
    for _ in 0..4 {
        let client = &instances[rand::rng().random_range(0..3)];
        let call = client.acquire(request.clone());
        // One call in ten is cancelled midway.
        let result = if chance(10) { timeout(millis(1..300), call).await.ok()? } else { call.await };
        match result {
            Ok(AcquireResult::Granted(hold)) => return Some(hold),
            Ok(AcquireResult::Held(_) | AcquireResult::TimedOut(_)) => return None,
            Err(failure) => {
                let known = ["QUARANTINE", "STATE_AWAY", "STORE_AWAY", "OVERLOADED", "TAKEN_OVER", "LEASE_OVER", ""];
                assert!(known.contains(&failure.reason.as_str()), "{failure}");
            }
        }
        sleep(millis(10..100)).await;
    }
    None
}

/// Holds a lock for a while, sometimes renews it, and mostly releases it.
async fn hold_and_release(instances: &[LockClient; 3], mut hold: HeldLock, history: &Mutex<Vec<HoldInterval>>) {
    let mut interval = HoldInterval::start(&hold);
    let client = &instances[rand::rng().random_range(0..3)];
    sleep(millis(0..80)).await;
    if chance(30) && Instant::now() < hold.deadline && client.renew(&mut hold).await.is_ok() {
        interval.until = hold.deadline;
    }
    let stuck = chance(7);
    if stuck {
        sleep_until(interval.until).await; // a holder that does nothing, not even release
    }
    interval.end();
    history.lock().unwrap().push(interval);
    if stuck {
        sleep(GRACE + millis(0..400)).await; // another client may hold the lock by now
    }
    if chance(90) {
        let _ = client.release(&hold).await;
    }
    if chance(20) {
        sleep(millis(0..200)).await;
        let _ = client.release(&hold).await; // a late retry
    }
}
