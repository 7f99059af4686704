//! Redis faults of every kind, under each service with its default timeouts.
//!
//! During a fault every call ends in time with success or a documented refusal, and health reports
//! the fault. Afterwards the service recovers within two seconds, and no acknowledged write is
//! lost, duplicated, or replaced by an older one.

mod broadcast;
mod eviction;
mod fault;
mod history;
mod lock;
mod user;

use std::time::Duration;

use tidings_devstack::{Devstack, Options};
use tidings_status::Failure;
use tokio::time::{Instant, sleep};

use crate::service::TestService;
use crate::support::print_figures;
use fault::{ActiveFault, RedisFault};

/// Allowance for a busy machine, added to every limit.
const SLACK: Duration = Duration::from_secs(3);
/// Longest duration of a call under any fault.
const MAX_CALL: Duration = Duration::from_millis(700);
/// Longest time until health reports an unavailable dependency.
const DETECTION: Duration = Duration::from_secs(3);
/// Longest time from the end of a fault until calls succeed and health reports it.
const RECOVERY: Duration = Duration::from_secs(2);
/// Time for which a fault continues after health has reported it.
const STABLE: Duration = Duration::from_secs(2);
/// Pause between two iterations of a workload.
const PAUSE: Duration = Duration::from_millis(10);

/// A service and one caller that repeats its main calls and records acknowledged writes.
trait FaultWorkload {
    /// Returns the service under test.
    fn service(&self) -> &TestService;

    /// Health entry of the service.
    const ENTRY: &str;
    /// True if the main calls of the service work without Redis.
    const WITHOUT_REDIS: bool;
    /// Additional recovery time after a fault in which Redis loses its data.
    const AFTER_LOSS: Duration = Duration::ZERO;

    /// Makes the main calls once.
    ///
    /// # Panics
    /// If a response contradicts an acknowledged write.
    async fn run_once(&mut self) -> Result<(), Failure>;

    /// Returns true if the contract allows the failure during the fault, or after its end if
    /// `after`.
    fn is_expected_refusal(fault: RedisFault, after: bool, failure: &Failure) -> bool;

    /// Returns true if the service uses Redis normally again; called after a successful iteration.
    async fn is_healthy(&mut self) -> bool;

    /// Asserts that every acknowledged write is there, once and in order.
    async fn assert_nothing_lost(&mut self, fault: RedisFault);
}

/// Starts a Postgres and a Redis for one test; they run until this process ends.
async fn own_stack() -> &'static Devstack {
    Box::leak(Box::new(Devstack::start(Options::temporary()).await.unwrap()))
}

/// Runs a workload under each fault in turn.
async fn run_all_faults<J: FaultWorkload>(stack: &'static Devstack, mut workload: J) {
    run_until_healthy(&mut workload, "before the first fault", RECOVERY + SLACK, |_| true).await;
    for fault in RedisFault::ALL {
        run_fault(stack, &mut workload, fault).await;
    }
    workload.service().assert_did_not_panic();
}

async fn run_fault<J: FaultWorkload>(stack: &'static Devstack, workload: &mut J, fault: RedisFault) {
    let context = format!("{} with redis {fault}", J::ENTRY);
    let mut active = ActiveFault::begin(stack, fault).await;
    let summary = run_during_fault(workload, fault, &context).await;
    active.end().await;

    let started = Instant::now();
    let quarantine = if fault.loses_data() { J::AFTER_LOSS } else { Duration::ZERO };
    run_until_healthy(workload, &context, quarantine + RECOVERY + SLACK, |failure| {
        J::is_expected_refusal(fault, true, failure)
    })
    .await;
    let works = started.elapsed();
    wait_for_health_of(workload, true, true, &context, RECOVERY + SLACK).await;
    workload.assert_nothing_lost(fault).await;
    let serving = started.elapsed();
    print_figures(&format!(
        "{context}: {summary}; calls succeed {works:.1?} and SERVING {serving:.1?} after its end\n"
    ));
}

/// Runs a workload during a fault, until health has reported it and for [`STABLE`] longer.
/// Returns a summary to print.
async fn run_during_fault<J: FaultWorkload>(workload: &mut J, fault: RedisFault, context: &str) -> String {
    let started = Instant::now();
    let (mut done, mut refused, mut longest, mut detected) = (0, 0, Duration::ZERO, None);
    let works = J::WITHOUT_REDIS || !fault.makes_unavailable();
    while detected.is_none_or(|detected: Duration| started.elapsed() < detected + STABLE) {
        let call = Instant::now();
        match workload.run_once().await {
            Ok(()) => done += 1,
            Err(failure) => {
                assert!(J::is_expected_refusal(fault, false, &failure), "{context}: {failure}");
                refused += 1;
            }
        }
        longest = longest.max(call.elapsed());
        assert!(call.elapsed() < MAX_CALL + SLACK, "{context}: a call took {:?}", call.elapsed());
        if detected.is_none() && health(workload).await == (true, works, !fault.makes_unavailable()) {
            detected = Some(started.elapsed());
        }
        let in_time = detected.is_some() || started.elapsed() < DETECTION + SLACK;
        assert!(in_time, "{context}: {}", workload.service().http_response("/readyz").await);
        sleep(PAUSE).await;
    }
    assert_eq!(
        health(workload).await,
        (true, works, !fault.makes_unavailable()),
        "{context}: (ready, main calls work, redis works)"
    );
    let detected = detected.unwrap_or_default();
    format!("health reports it after {detected:.1?}, {done} calls succeeded, {refused} refused, slowest {longest:.0?}")
}

/// Repeats a workload until it succeeds and the service is healthy.
async fn run_until_healthy<J: FaultWorkload>(
    workload: &mut J,
    context: &str,
    timeout: Duration,
    expected: impl Fn(&Failure) -> bool,
) {
    let started = Instant::now();
    loop {
        match workload.run_once().await {
            Ok(()) if workload.is_healthy().await => return,
            Ok(()) => {}
            Err(failure) => assert!(expected(&failure), "{context}: {failure}"),
        }
        assert!(started.elapsed() < timeout, "{context}: not healthy after {:?}", started.elapsed());
        sleep(PAUSE).await;
    }
}

/// Reads `/readyz`: true if the service is ready, if its own entry serves, if its entry `redis`
/// serves.
async fn health<J: FaultWorkload>(workload: &J) -> (bool, bool, bool) {
    let response = workload.service().http_response("/readyz").await;
    let serves = |entry: &str| response.lines().any(|line| line.strip_prefix(entry).is_some_and(serving));
    (response.starts_with("HTTP/1.1 200 "), serves(J::ENTRY), serves("redis"))
}

/// Returns true if the rest of an entry's line, after its name, starts with the state SERVING.
fn serving(rest: &str) -> bool {
    rest.split(' ').nth(1) == Some("SERVING")
}

async fn wait_for_health_of<J: FaultWorkload>(
    workload: &J,
    works: bool,
    redis: bool,
    context: &str,
    timeout: Duration,
) {
    let started = Instant::now();
    while health(workload).await != (true, works, redis) {
        assert!(started.elapsed() < timeout, "{context}: {}", workload.service().http_response("/readyz").await);
        sleep(PAUSE).await;
    }
}
