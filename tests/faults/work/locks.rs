//! Locks that many want: no two believe in one at the same time, and tokens grow in the order of the grants.

use std::sync::Mutex;
use std::time::Duration;

use tidings_client::{AcquireOptions, Acquired, Caller, LockGuard};
use tokio::time::{Instant, sleep};

use super::{Account, Refused, Work};

/// So many that most are free.
const LOCKS: u64 = 16;
/// As short as leases may be: nobody is granted anything for so long after Redis lost its data.
const TTL: Duration = Duration::from_secs(1);
/// How long a lock is used.
const USE: Duration = Duration::from_millis(2);

/// The work.
pub(crate) struct Locks {
    caller: Caller,
    beliefs: Mutex<Vec<Belief>>,
}

/// Somebody who believed that he held a lock.
#[derive(Clone, Debug)]
struct Belief {
    lock: u64,
    token: i64,
    asked: Instant,
    /// When he heard of it.
    from: Instant,
    /// When he stopped to believe: at his deadline, or before he asked for the release.
    until: Instant,
}

impl Locks {
    /// Locks that are asked for by `caller`.
    pub(crate) fn new(caller: Caller) -> Self {
        Self { caller, beliefs: Mutex::default() }
    }
}

impl Work for Locks {
    const NAME: &'static str = "lock";

    async fn once(&self, number: u64) -> Result<(), Refused> {
        let lock = number % LOCKS;
        let options =
            AcquireOptions { ttl: TTL, ..AcquireOptions::new(format!("lock-{lock}"), format!("owner-{number}")) };
        let asked = Instant::now();
        let acquired = LockGuard::acquire(&self.caller, options).await.map_err(|error| Refused::from(&error))?;
        let Acquired::Granted(guard) = acquired else { return Ok(()) };
        let from = Instant::now();
        let deadline = from + guard.deadline().remaining();
        sleep(USE).await;
        let until = deadline.min(Instant::now());
        self.beliefs.lock().unwrap().push(Belief { lock, token: guard.token(), asked, from, until });
        // What is not released runs out; and it was granted, which is what was asked for.
        let _ = guard.release().await;
        Ok(())
    }

    fn history(&self) -> Vec<String> {
        self.beliefs.lock().unwrap().iter().map(|belief| format!("{belief:?}")).collect()
    }

    async fn account(&self) -> Account {
        judge(&self.beliefs.lock().unwrap())
    }
}

/// In the order of their tokens, those who believed in one lock follow each other.
fn judge(beliefs: &[Belief]) -> Account {
    let mut account = Account { acknowledged: beliefs.len() as u64, ..Account::default() };
    // A belief that came too late was none.
    let mut believed: Vec<_> = beliefs.iter().filter(|belief| belief.from < belief.until).collect();
    believed.sort_by_key(|belief| (belief.lock, belief.from));
    for (place, one) in believed.iter().enumerate() {
        for other in believed[place + 1..].iter().take_while(|other| other.lock == one.lock) {
            if other.token == one.token || other.from < one.until {
                account.duplicated += 1;
            } else if other.asked > one.from && other.token < one.token {
                account.gone_back += 1;
            }
            if other.from > one.until + TTL {
                break; // further ones were compared with later ones
            }
        }
    }
    account
}
