//! Those who use locks: some try, some wait, some repeat, some go away, some hold on until their deadline.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt as _;
use tidings_proto::lock::AcquireLockRequest;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::NAMES;
use super::checker::Belief;
use crate::support::GRACE;
use crate::support::client::{Acquired, Client, Hold, named, once, waiting_for};

fn chance(percent: u32) -> bool {
    rand::rng().random_range(0..100) < percent
}

fn millis(range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rand::rng().random_range(range))
}

/// Acquires and releases until told to stop, and writes down what it believed.
pub(super) async fn work(
    number: usize,
    instances: [Client; 3],
    history: Arc<Mutex<Vec<Belief>>>,
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
            Some(hold) => use_it(&instances, hold, &history).await,
            None => sleep(millis(1..50)).await,
        }
    }
}

/// Tries on one instance after the other; a named request is repeated, any other is another one each time.
async fn acquire(instances: &[Client; 3], request: AcquireLockRequest) -> Option<Hold> {
    for _ in 0..4 {
        let client = &instances[rand::rng().random_range(0..3)];
        let asked = client.acquire(request.clone());
        // Some go away in the middle.
        let answer = if chance(10) { timeout(millis(1..300), asked).await.ok()? } else { asked.await };
        match answer {
            Ok(Acquired::Granted(hold)) => return Some(hold),
            Ok(Acquired::Held(_) | Acquired::TimedOut(_)) => return None,
            Err(failure) => {
                let known = ["QUARANTINE", "STATE_AWAY", "STORE_AWAY", "OVERLOADED", "TAKEN_OVER", "LEASE_OVER", ""];
                assert!(known.contains(&failure.reason.as_str()), "{failure}");
            }
        }
        sleep(millis(10..100)).await;
    }
    None
}

/// Believes for a while, perhaps renews, and releases, or never does.
async fn use_it(instances: &[Client; 3], mut hold: Hold, history: &Mutex<Vec<Belief>>) {
    let mut belief = Belief::begin(&hold);
    let client = &instances[rand::rng().random_range(0..3)];
    sleep(millis(0..80)).await;
    if chance(30) && Instant::now() < hold.deadline && client.renew(&mut hold).await.is_ok() {
        belief.until = hold.deadline;
    }
    let stuck = chance(7);
    if stuck {
        sleep_until(belief.until).await; // the holder does not move, and so does the lock not
    }
    belief.end();
    history.lock().unwrap().push(belief);
    if stuck {
        sleep(GRACE + millis(0..400)).await; // by now somebody else may have it
    }
    if chance(90) {
        let _ = client.release(&hold).await;
    }
    if chance(20) {
        sleep(millis(0..200)).await;
        let _ = client.release(&hold).await; // a repeat that comes late
    }
}
