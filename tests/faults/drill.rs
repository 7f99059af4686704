//! How a drill runs: measure what the services can do, offer half of it, let the fault happen in the middle, and account for
//! every call.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::join;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};

use crate::load::{Call, Load, Numbered};
use crate::report::{self, Line};
use crate::stage::Stage;
use crate::work::channels::{Channels, Ear};
use crate::work::conversations::Conversations;
use crate::work::locks::Locks;
use crate::work::users::Users;
use crate::work::{self, Work};

/// One drill at a time: they measure.
static ALONE: Mutex<()> = Mutex::new(());

/// Callers of each service while it is measured what it can do.
const CALLERS: usize = 8;
/// Of what the services can do, together, so much is offered.
const HALF: f64 = 0.5;
/// Of what is offered before the fault, so much has to be done: else the drill shows nothing.
const REACHED: f64 = 0.9;
/// Of the calls of a service that a fault must not reach, less than one in so many may be refused, for other reasons: the time-out for
/// Redis is short, and the machine has other things to do.
const UNRELATED: u64 = 100;
/// What a loaded machine may add to a time within which things have to be as they were.
const SLACK: Duration = Duration::from_secs(3);

/// How long a drill takes: seconds in `make test`, more in `make faults`.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    /// For measuring what the services can do.
    measure: Duration,
    /// Before the fault.
    before: Duration,
    /// After it.
    after: Duration,
    /// Whether it is the long form.
    pub(crate) full: bool,
}

impl Times {
    /// As `TIDINGS_FAULTS` says: `full`, or nothing.
    pub(crate) fn get() -> Self {
        let seconds = Duration::from_secs;
        if std::env::var("TIDINGS_FAULTS").is_ok_and(|form| form == "full") {
            Self { measure: seconds(2), before: seconds(5), after: seconds(10), full: true }
        } else {
            Self { measure: seconds(1) / 2, before: seconds(1), after: seconds(3), full: false }
        }
    }

    /// A time of the long form, and that of the short one.
    pub(crate) fn either<T>(self, full: T, short: T) -> T {
        if self.full { full } else { short }
    }
}

/// What a drill must show.
pub(crate) struct Drill {
    pub(crate) name: &'static str,
    /// How long callers go on repeating a call; with it none may fail.
    pub(crate) patience: Option<Duration>,
    /// Within this long after the fault no call of a service is refused any more; nothing for services that the fault must not
    /// reach at all.
    pub(crate) recovery: [(&'static str, Option<Duration>); 4],
    /// What listeners do to what they hear.
    pub(crate) ear: Ear,
    /// The service that has a bug on purpose, if one has.
    pub(crate) bug: Option<&'static str>,
}

/// Runs something while no other drill runs.
pub(crate) fn alone<T>(something: impl Future<Output = T>) -> T {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    Runtime::new().unwrap().block_on(something)
}

impl Drill {
    /// A drill whose callers hear every refusal.
    pub(crate) fn new(name: &'static str, recovery: [(&'static str, Option<Duration>); 4]) -> Self {
        Self { name, patience: None, recovery, ear: Vec::push, bug: None }
    }

    /// Runs it.
    ///
    /// # Panics
    /// If anything is not as it must be.
    pub(crate) fn run(self, fault: impl AsyncFnOnce(&mut Stage, Times)) {
        let wrong = self.lines(fault).iter().flat_map(Line::wrong).collect::<Vec<_>>();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// Runs it and returns what it showed, a line for each service, or for the one that has a bug. It is in the report, too.
    pub(crate) fn lines(self, fault: impl AsyncFnOnce(&mut Stage, Times)) -> Vec<Line> {
        let mut lines = alone(self.play(fault));
        if let Some(bug) = self.bug {
            lines.retain(|line| line.service == bug);
        }
        report::add(&lines);
        lines
    }

    async fn play(&self, fault: impl AsyncFnOnce(&mut Stage, Times)) -> Vec<Line> {
        let times = Times::get();
        let mut stage = Stage::open().await;
        let caller = |instances: &[_]| match self.patience {
            None => work::once(instances),
            Some(patience) => work::caller(instances, patience),
        };
        let truth = stage.stack.postgres().url(stage.history[0].database());
        let users = Numbered::new(Users::new(caller(&stage.user), &stage.user).await);
        let conversations = Numbered::new(Conversations::new(caller(&stage.history), &stage.history, truth).await);
        let locks = Numbered::new(Locks::new(caller(&stage.lock)));
        let channels = Numbered::new(Channels::new(caller(&stage.broadcast), &stage.broadcast, self.ear).await);
        let (users, conversations, locks, channels) =
            (Arc::new(users), Arc::new(conversations), Arc::new(locks), Arc::new(channels));

        let measured = join!(
            users.capacity(CALLERS, times.measure),
            conversations.capacity(CALLERS, times.measure),
            locks.capacity(CALLERS, times.measure),
            channels.capacity(CALLERS, times.measure),
        );
        let capacity: [f64; 4] = measured.into();
        let loads = (
            Load::start(&users, capacity[0] * HALF),
            Load::start(&conversations, capacity[1] * HALF),
            Load::start(&locks, capacity[2] * HALF),
            Load::start(&channels, capacity[3] * HALF),
        );
        let begun = Instant::now();
        sleep(times.before).await;
        let struck = Instant::now();
        fault(&mut stage, times).await;
        let healed = Instant::now();
        sleep(times.after).await;
        let phases = Phases { begun, struck, healed, ended: Instant::now() };
        let calls = join!(loads.0.end(), loads.1.end(), loads.2.end(), loads.3.end());
        let lines = vec![
            self.line(&*users, capacity[0], phases, &calls.0).await,
            self.line(&*conversations, capacity[1], phases, &calls.1).await,
            self.line(&*locks, capacity[2], phases, &calls.2).await,
            self.line(&*channels, capacity[3], phases, &calls.3).await,
        ];
        stage.close().await;
        lines
    }

    async fn line<W: Work>(&self, work: &Numbered<W>, capacity: f64, phases: Phases, calls: &[Call]) -> Line {
        let (_, bar) = self.recovery.into_iter().find(|(name, _)| *name == W::NAME).unwrap();
        let mut line = Line::new(self.name, W::NAME, capacity, capacity * HALF);
        line.seeded = self.bug.is_some();
        line.rates = phases.rates(calls);
        line.slowest = calls.iter().map(Call::took).max().unwrap_or_default();
        line.recovery = phases.recovery(calls);
        line.account = work.work.account().await;
        line.count(calls);
        if line.rates[0] < line.offered * REACHED {
            line.complain(format!("before the fault {:.0}/s were done of {:.0}/s", line.rates[0], line.offered));
        }
        match bar {
            _ if self.patience.is_some() && line.refused() > 0 => {
                line.complain("calls failed although they were repeated".to_owned());
            }
            None if line.refused() * UNRELATED > calls.len() as u64 => {
                line.complain("calls were refused that nothing kept from being done".to_owned());
            }
            Some(bar) if line.recovery > bar + SLACK => {
                line.complain(format!("calls were refused {:.1?} after the fault, not {bar:?}", line.recovery));
            }
            _ => {}
        }
        if !line.wrong().is_empty() && self.bug.is_none() {
            report::keep(&line, work.work.history(), calls);
        }
        line
    }
}

/// The moments between the phases of a drill.
#[derive(Clone, Copy)]
struct Phases {
    begun: Instant,
    struck: Instant,
    healed: Instant,
    ended: Instant,
}

impl Phases {
    /// Calls that were done in a second of each phase, of those that were due in it.
    fn rates(self, calls: &[Call]) -> [f64; 3] {
        let phases = [(self.begun, self.struck), (self.struck, self.healed), (self.healed, self.ended)];
        phases.map(|(from, to)| {
            let done = calls.iter().filter(|call| call.refused.is_none() && (from..to).contains(&call.due)).count();
            let seconds = (to - from).as_secs_f64();
            if seconds < 0.01 { 0.0 } else { f64::from(u32::try_from(done).unwrap()) / seconds }
        })
    }

    /// How long after the fault the last call ended that was refused.
    fn recovery(self, calls: &[Call]) -> Duration {
        let refused = calls.iter().filter(|call| call.refused.is_some());
        refused.map(|call| call.ended.saturating_duration_since(self.healed)).max().unwrap_or_default()
    }
}
