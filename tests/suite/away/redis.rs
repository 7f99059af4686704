//! Redis hurt in each of the ways there are, under each of the services with the time-outs that they are shipped with.
//!
//! Meanwhile every call ends in time, succeeds or is refused as its page says, and the health says what is so. Afterwards
//! everything is as it was within two seconds, and nothing that was acknowledged is missing, there twice, or older than it was.

mod broadcast;
mod faults;
mod history;
mod lock;
mod start;
mod user;

use std::time::Duration;

use tidings_devstack::{Devstack, Options};
use tidings_status::Failure;
use tokio::time::{Instant, sleep};

use crate::service::Service;
use crate::support::say;
use faults::{Fault, Hurt};

/// What a busy machine may add to any time.
const BUSY: Duration = Duration::from_secs(3);
/// The longest that a call may take, whatever happens to Redis.
const CALL: Duration = Duration::from_millis(700);
/// Within this long the health says that a dependency is away.
const TOLD: Duration = Duration::from_secs(3);
/// Within this long everything is as it was, and the health says so.
const BACK: Duration = Duration::from_secs(2);
/// How long it stays so after the health has told it.
const LONGER: Duration = Duration::from_secs(2);
/// The pause between two calls of the one caller that a service has here.
const PAUSE: Duration = Duration::from_millis(10);

/// A service with its main job, done again and again by one caller, who remembers what was acknowledged.
trait Job {
    /// The service.
    fn service(&self) -> &Service;

    /// The entry of its health.
    const ENTRY: &str;
    /// Whether it does its main job without Redis.
    const WITHOUT_REDIS: bool;
    /// How long it needs, besides, before it works again after Redis lost its data.
    const AFTER_LOSS: Duration = Duration::ZERO;

    /// Does the job once.
    ///
    /// # Panics
    /// If what was acknowledged before does not hold.
    async fn work(&mut self) -> Result<(), Failure>;

    /// Whether this is the refusal that its page promises; `fault` is over if `after`.
    fn may_refuse(fault: Fault, after: bool, failure: &Failure) -> bool;

    /// Whether everything is as it should be with a Redis that is well, after a job that succeeded.
    async fn is_well(&mut self) -> bool;

    /// # Panics
    /// If anything acknowledged is missing, there twice, or in another order.
    async fn account(&mut self, fault: Fault);
}

/// Servers of a test's own, for the rest of this process.
async fn own_stack() -> &'static Devstack {
    Box::leak(Box::new(Devstack::start(Options::temporary()).await.unwrap()))
}

/// Hurts the Redis of a service in each of the ways there are.
async fn through_all<J: Job>(stack: &'static Devstack, mut job: J) {
    insist(&mut job, "in the beginning", BACK + BUSY, |_| true).await;
    for fault in Fault::ALL {
        through(stack, &mut job, fault).await;
    }
    job.service().assert_did_not_panic();
}

async fn through<J: Job>(stack: &'static Devstack, job: &mut J, fault: Fault) {
    let what = format!("{} with redis {fault}", J::ENTRY);
    let mut hurt = Hurt::inflict(stack, fault).await;
    let seen = meanwhile(job, fault, &what).await;
    hurt.heal().await;

    let begun = Instant::now();
    let lost = if fault.loses_data() { J::AFTER_LOSS } else { Duration::ZERO };
    insist(job, &what, lost + BACK + BUSY, |failure| J::may_refuse(fault, true, failure)).await;
    let works = begun.elapsed();
    until_health(job, true, true, &what, BACK + BUSY).await;
    job.account(fault).await;
    say(&format!("{what}: {seen}; works again after {works:.1?}, SERVING after {:.1?}\n", begun.elapsed()));
}

/// Works while Redis is hurt, until the health has said so and a little longer. Returns what there is to tell.
async fn meanwhile<J: Job>(job: &mut J, fault: Fault, what: &str) -> String {
    let begun = Instant::now();
    let (mut done, mut refused, mut longest, mut told) = (0, 0, Duration::ZERO, None);
    let works = J::WITHOUT_REDIS || !fault.takes_away();
    while told.is_none_or(|told: Duration| begun.elapsed() < told + LONGER) {
        let call = Instant::now();
        match job.work().await {
            Ok(()) => done += 1,
            Err(failure) => {
                assert!(J::may_refuse(fault, false, &failure), "{what}: {failure}");
                refused += 1;
            }
        }
        longest = longest.max(call.elapsed());
        assert!(call.elapsed() < CALL + BUSY, "{what}: a call took {:?}", call.elapsed());
        if told.is_none() && health(job).await == (true, works, !fault.takes_away()) {
            told = Some(begun.elapsed());
        }
        assert!(told.is_some() || begun.elapsed() < TOLD + BUSY, "{what}: {}", job.service().http("/readyz").await);
        sleep(PAUSE).await;
    }
    assert_eq!(health(job).await, (true, works, !fault.takes_away()), "{what}: ready, does its job, has redis");
    let told = told.unwrap_or_default();
    format!("health right after {told:.1?}, {done} done, {refused} refused, the longest {longest:.0?}")
}

/// Works until it succeeds and everything is well.
async fn insist<J: Job>(job: &mut J, what: &str, patience: Duration, may_refuse: impl Fn(&Failure) -> bool) {
    let begun = Instant::now();
    loop {
        match job.work().await {
            Ok(()) if job.is_well().await => return,
            Ok(()) => {}
            Err(failure) => assert!(may_refuse(&failure), "{what}: {failure}"),
        }
        assert!(begun.elapsed() < patience, "{what}: not well after {:?}", begun.elapsed());
        sleep(PAUSE).await;
    }
}

/// Whether a service is ready, whether it does its main job, and whether it says that Redis is there.
async fn health<J: Job>(job: &J) -> (bool, bool, bool) {
    let answer = job.service().http("/readyz").await;
    let says = |entry: &str| answer.lines().any(|line| line.strip_prefix(entry).is_some_and(serving));
    (answer.starts_with("HTTP/1.1 200 "), says(J::ENTRY), says("redis"))
}

/// What follows the name of an entry: its state, and perhaps more.
fn serving(rest: &str) -> bool {
    rest.split(' ').nth(1) == Some("SERVING")
}

async fn until_health<J: Job>(job: &J, works: bool, redis: bool, what: &str, patience: Duration) {
    let begun = Instant::now();
    while health(job).await != (true, works, redis) {
        assert!(begun.elapsed() < patience, "{what}: {}", job.service().http("/readyz").await);
        sleep(PAUSE).await;
    }
}
