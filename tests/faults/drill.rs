//! The course of a drill: offer a load, inject the fault in the middle, and check the ledger of
//! every call.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::join;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};

use crate::installation::DrillInstallation;
use crate::load::{CallOutcome, NumberedCalls, OpenLoop};
use crate::report::{self, DrillResult};
use crate::workload::channels::{ChannelWorkload, EventRecorder};
use crate::workload::conversations::ConversationWorkload;
use crate::workload::locks::LockWorkload;
use crate::workload::users::UserWorkload;
use crate::workload::{self, Workload};

/// Held by the running drill: the promised times hold on a machine that does nothing else.
static EXCLUSIVE: Mutex<()> = Mutex::new(());

/// Calls per second and service in the short form: a small part of the capacity of any machine, so
/// that the drill needs no measurement.
const SHORT_LOAD: f64 = 50.0;
/// Callers per service while the capacity is measured.
const CALLERS: usize = 8;
/// Time in which the capacity is measured.
const MEASURE_TIME: Duration = Duration::from_secs(2);
/// Share of the capacity that is offered in the long form; the capacities of all services are
/// measured together.
const OFFERED_SHARE: f64 = 0.5;
/// Share of the offered calls that must succeed before the fault: otherwise the drill has no
/// baseline.
const MIN_SUCCESS: f64 = 0.9;
/// Of a service that the fault must not affect, at most one in this many calls may fail for other
/// reasons: the timeout for Redis is short, and the machine is busy.
const UNRELATED_FAILURES: u64 = 100;
/// Allowance for a busy machine, added to each promised recovery time.
const SLACK: Duration = Duration::from_secs(3);

/// Durations of the phases of a drill: seconds in `make test`, more in `make faults`.
#[derive(Clone, Copy)]
pub(crate) struct DrillTimes {
    /// Load before the fault.
    before: Duration,
    /// Load after the fault.
    after: Duration,
    /// True in the long form.
    pub(crate) full: bool,
}

impl DrillTimes {
    /// Returns the durations of the long form if `TIDINGS_FAULTS` is `full`, else of the short one.
    pub(crate) fn get() -> Self {
        let seconds = Duration::from_secs;
        if std::env::var("TIDINGS_FAULTS").is_ok_and(|form| form == "full") {
            Self { before: seconds(5), after: seconds(10), full: true }
        } else {
            Self { before: seconds(1), after: seconds(3), full: false }
        }
    }

    /// Returns `full` in the long form, else `short`.
    pub(crate) fn either<T>(self, full: T, short: T) -> T {
        if self.full { full } else { short }
    }
}

/// A drill and its pass criteria.
pub(crate) struct Drill {
    pub(crate) name: &'static str,
    /// Time in which callers retry a call; if set, no call may fail.
    pub(crate) retry_for: Option<Duration>,
    /// Per service, the longest time after the fault in which its calls may fail; `None` if the
    /// fault must not affect the service at all.
    pub(crate) recovery: [(&'static str, Option<Duration>); 4],
    /// The function by which subscribers record the events they receive.
    pub(crate) recorder: EventRecorder,
    /// True if every service has a seeded bug.
    pub(crate) seeded: bool,
}

/// Runs a drill while no other drill runs.
pub(crate) fn run_exclusively<T>(drill: impl Future<Output = T>) -> T {
    let _exclusive = EXCLUSIVE.lock();
    Runtime::new().unwrap().block_on(drill)
}

impl Drill {
    /// Creates a drill whose callers do not retry.
    pub(crate) fn new(name: &'static str, recovery: [(&'static str, Option<Duration>); 4]) -> Self {
        Self { name, retry_for: None, recovery, recorder: Vec::push, seeded: false }
    }

    /// Runs the drill.
    ///
    /// # Panics
    /// If a promise is violated.
    pub(crate) fn run(self, fault: impl AsyncFnOnce(&mut DrillInstallation, DrillTimes)) {
        let violations = self.results(fault).iter().flat_map(DrillResult::violations).collect::<Vec<_>>();
        assert!(violations.is_empty(), "{}", violations.join("\n"));
    }

    /// Runs the drill and adds its results to the report. Returns one result per service.
    pub(crate) fn results(self, fault: impl AsyncFnOnce(&mut DrillInstallation, DrillTimes)) -> Vec<DrillResult> {
        let times = DrillTimes::get();
        let results = run_exclusively(self.measure(fault, times));
        report::add(&results);
        results
    }

    async fn measure(
        &self,
        fault: impl AsyncFnOnce(&mut DrillInstallation, DrillTimes),
        times: DrillTimes,
    ) -> Vec<DrillResult> {
        let mut installation = DrillInstallation::start().await;
        let caller = |instances: &[_]| match self.retry_for {
            None => workload::caller_without_retries(instances),
            Some(retry_for) => workload::caller_with_retries(instances, retry_for),
        };
        let database = installation.stack.postgres().url(installation.history[0].database());
        let users = UserWorkload::new(caller(&installation.user), &installation.user).await;
        let conversations =
            ConversationWorkload::new(caller(&installation.history), &installation.history, database).await;
        let locks = LockWorkload::new(caller(&installation.lock));
        let channels =
            ChannelWorkload::new(caller(&installation.broadcast), &installation.broadcast, self.recorder).await;
        let (users, conversations) = (Arc::new(NumberedCalls::new(users)), Arc::new(NumberedCalls::new(conversations)));
        let (locks, channels) = (Arc::new(NumberedCalls::new(locks)), Arc::new(NumberedCalls::new(channels)));

        let offered: [f64; 4] = if times.full {
            let capacities: [f64; 4] = join!(
                users.capacity(CALLERS, MEASURE_TIME),
                conversations.capacity(CALLERS, MEASURE_TIME),
                locks.capacity(CALLERS, MEASURE_TIME),
                channels.capacity(CALLERS, MEASURE_TIME),
            )
            .into();
            capacities.map(|capacity| capacity * OFFERED_SHARE)
        } else {
            [SHORT_LOAD; 4]
        };
        let loads = (
            OpenLoop::start(&users, offered[0]),
            OpenLoop::start(&conversations, offered[1]),
            OpenLoop::start(&locks, offered[2]),
            OpenLoop::start(&channels, offered[3]),
        );
        let begin = Instant::now();
        sleep(times.before).await;
        let fault_begin = Instant::now();
        fault(&mut installation, times).await;
        let fault_end = Instant::now();
        sleep(times.after).await;
        let phases = PhaseTimes { begin, fault_begin, fault_end, end: Instant::now() };
        let calls = join!(loads.0.stop(), loads.1.stop(), loads.2.stop(), loads.3.stop());
        let results = vec![
            self.check(&*users, offered[0], phases, &calls.0).await,
            self.check(&*conversations, offered[1], phases, &calls.1).await,
            self.check(&*locks, offered[2], phases, &calls.2).await,
            self.check(&*channels, offered[3], phases, &calls.3).await,
        ];
        installation.stop().await;
        results
    }

    /// Checks the calls of one service, and its ledger, against the pass criteria.
    async fn check<W: Workload>(
        &self,
        calls_of: &NumberedCalls<W>,
        offered: f64,
        phases: PhaseTimes,
        calls: &[CallOutcome],
    ) -> DrillResult {
        let (_, recovery) = self.recovery.into_iter().find(|(name, _)| *name == W::NAME).unwrap();
        let mut result = DrillResult::new(self.name, W::NAME, offered);
        result.seeded = self.seeded;
        result.rates = phases.rates(calls);
        result.slowest = calls.iter().map(CallOutcome::latency).max().unwrap_or_default();
        result.recovery = phases.recovery(calls);
        result.ledger = calls_of.workload.check_ledger().await;
        result.count_errors(calls);
        if result.rates[0] < offered * MIN_SUCCESS {
            let rate = result.rates[0];
            result.add_violation(format!("before the fault only {rate:.0}/s of {offered:.0}/s calls succeeded"));
        }
        match recovery {
            _ if self.retry_for.is_some() && result.failed() > 0 => {
                result.add_violation("calls failed in spite of retries".to_owned());
            }
            None if result.failed() * UNRELATED_FAILURES > calls.len() as u64 => {
                result.add_violation("calls failed although the fault must not affect the service".to_owned());
            }
            Some(promised) if result.recovery > promised + SLACK => {
                let recovery = result.recovery;
                result
                    .add_violation(format!("calls failed for {recovery:.1?} after the fault, promised: {promised:?}"));
            }
            _ => {}
        }
        if !result.violations().is_empty() && !self.seeded {
            report::write_ledger(&result, calls_of.workload.ledger_lines(), calls);
        }
        result
    }
}

/// The boundaries of the phases of a drill.
#[derive(Clone, Copy)]
struct PhaseTimes {
    begin: Instant,
    fault_begin: Instant,
    fault_end: Instant,
    end: Instant,
}

impl PhaseTimes {
    /// Returns for each phase the successful calls per second, of those whose intended start time
    /// is in the phase.
    fn rates(self, calls: &[CallOutcome]) -> [f64; 3] {
        let phases = [(self.begin, self.fault_begin), (self.fault_begin, self.fault_end), (self.fault_end, self.end)];
        phases.map(|(from, to)| {
            let succeeded =
                calls.iter().filter(|call| call.error.is_none() && (from..to).contains(&call.intended)).count();
            let seconds = (to - from).as_secs_f64();
            if seconds < 0.01 { 0.0 } else { f64::from(u32::try_from(succeeded).unwrap()) / seconds }
        })
    }

    /// Returns the time from the end of the fault to the end of the last failed call.
    fn recovery(self, calls: &[CallOutcome]) -> Duration {
        let failed = calls.iter().filter(|call| call.error.is_some());
        failed.map(|call| call.ended.saturating_duration_since(self.fault_end)).max().unwrap_or_default()
    }
}
