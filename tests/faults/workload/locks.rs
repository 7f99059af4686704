//! Acquires and releases contended locks: no two holders at the same time, and tokens that grow in
//! the order of the grants.

use std::sync::Mutex;
use std::time::Duration;

use tidings_client::{AcquireOptions, Acquisition, Caller, LockGuard};
use tokio::time::{Instant, sleep};

use super::{CallError, LedgerCounts, Workload};

/// Number of locks: enough that most are free.
const LOCKS: u64 = 16;
/// The shortest lease: after a loss of Redis no lock is granted for this long.
const TTL: Duration = Duration::from_secs(1);
/// Time for which a lock is held.
const HOLD_TIME: Duration = Duration::from_millis(2);

/// The workload of lock.
pub(crate) struct LockWorkload {
    caller: Caller,
    holds: Mutex<Vec<HoldRecord>>,
}

/// A hold of a lock, as its holder saw it.
#[derive(Clone, Debug)]
struct HoldRecord {
    lock: u64,
    token: i64,
    requested: Instant,
    /// Arrival of the grant.
    from: Instant,
    /// End of the hold: its deadline, or the time before the release was sent.
    until: Instant,
}

impl LockWorkload {
    /// Creates a workload that acquires its locks by `caller`.
    pub(crate) fn new(caller: Caller) -> Self {
        Self { caller, holds: Mutex::default() }
    }
}

impl Workload for LockWorkload {
    const NAME: &'static str = "lock";

    async fn call(&self, number: u64) -> Result<(), CallError> {
        let lock = number % LOCKS;
        let options =
            AcquireOptions { ttl: TTL, ..AcquireOptions::new(format!("lock-{lock}"), format!("owner-{number}")) };
        let requested = Instant::now();
        let acquired = LockGuard::acquire(&self.caller, options).await.map_err(|error| CallError::from(&error))?;
        let Acquisition::Granted(guard) = acquired else { return Ok(()) };
        let from = Instant::now();
        let deadline = from + guard.deadline().remaining();
        sleep(HOLD_TIME).await;
        let until = deadline.min(Instant::now());
        self.holds.lock().unwrap().push(HoldRecord { lock, token: guard.token(), requested, from, until });
        // The call counts as successful once the lock was granted. An unreleased lock expires.
        let _ = guard.release().await;
        Ok(())
    }

    fn ledger_lines(&self) -> Vec<String> {
        self.holds.lock().unwrap().iter().map(|hold| format!("{hold:?}")).collect()
    }

    async fn check_ledger(&self) -> LedgerCounts {
        check_holds(&self.holds.lock().unwrap())
    }
}

/// Checks that the holds of each lock do not overlap, and that tokens grow in the order of grants.
fn check_holds(holds: &[HoldRecord]) -> LedgerCounts {
    let mut counts = LedgerCounts { acknowledged: holds.len() as u64, ..LedgerCounts::default() };
    // A grant that arrived after its deadline was never a hold.
    let mut valid: Vec<_> = holds.iter().filter(|hold| hold.from < hold.until).collect();
    valid.sort_by_key(|hold| (hold.lock, hold.from));
    for (index, hold) in valid.iter().enumerate() {
        for later in valid[index + 1..].iter().take_while(|later| later.lock == hold.lock) {
            if later.token == hold.token || later.from < hold.until {
                counts.duplicated += 1;
            } else if later.requested > hold.from && later.token < hold.token {
                counts.reverted += 1;
            }
            if later.from > hold.until + TTL {
                break; // the rest is compared with holds closer to it
            }
        }
    }
    counts
}
