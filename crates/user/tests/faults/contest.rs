//! Each race is run twice: by Tidings, who must hold, and by the naive cache, who must not. So it is known to bite.
//!
//! What a race judges are answers that callers got, told as an [`Outcome`]; only a wrong answer lets the naive cache lose.
//! Anything else that goes wrong panics, and fails either test.

use std::fmt;
use std::time::Duration;

use fail::FailScenario;
use tidings_user::Config;
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::support::{Users, World};

/// Who runs a race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contestant {
    Tidings,
    Naive,
}

/// What a race came to.
pub(crate) type Outcome = Result<(), Wrong>;

/// What nobody should have been told.
#[derive(Debug)]
pub(crate) struct Wrong(String);

impl Wrong {
    pub(crate) fn new(what: String) -> Self {
        Self(what)
    }

    /// Says where it was told.
    pub(crate) fn within(self, place: impl fmt::Display) -> Self {
        Self(format!("{place}: {self}"))
    }
}

impl Contestant {
    /// Whether what only Tidings has can be looked at: leases, keys that are not there, reasons.
    pub(crate) fn is_tidings(self) -> bool {
        self == Self::Tidings
    }

    /// What a reader is told whose fill comes too late: we read once more, the naive cache has stored what it had read.
    pub(crate) fn told_late<T>(self, before: T, now: T) -> T {
        if self.is_tidings() { now } else { before }
    }

    /// An instance.
    pub(crate) async fn serve(self, world: &World) -> Users {
        match self {
            Self::Tidings => world.serve().await,
            Self::Naive => world.serve_naive().await,
        }
    }

    /// Two instances whose settings differ from the usual.
    pub(crate) async fn two_with(self, world: &World, tune: impl Fn(&mut Config)) -> (Users, Users) {
        match self {
            Self::Tidings => (world.serve_with(&tune).await, world.serve_with(&tune).await),
            Self::Naive => (world.serve_naive_with(&tune).await, world.serve_naive_with(&tune).await),
        }
    }

    /// Two instances, neither of which relays: what the cache hears it hears from the call itself.
    pub(crate) async fn two(self, world: &World) -> (Users, Users) {
        match self {
            Self::Tidings => (world.serve_without_relay().await, world.serve_without_relay().await),
            Self::Naive => (world.serve_naive().await, world.serve_naive().await),
        }
    }
}

/// Runs a race that Tidings must hold.
pub(crate) async fn holds(race: impl AsyncFnOnce(Contestant) -> Outcome) {
    let _scenario = FailScenario::setup();
    if let Err(wrong) = race(Contestant::Tidings).await {
        panic!("{wrong}");
    }
}

/// Runs a race that the naive cache must lose.
pub(crate) async fn loses(race: impl AsyncFnOnce(Contestant) -> Outcome) {
    let _scenario = FailScenario::setup();
    assert!(race(Contestant::Naive).await.is_err(), "this test would not notice a naive cache");
}

/// Makes two tests of each race, under its own name: in one Tidings holds, in the other the naive cache loses.
macro_rules! races {
    ($($race:ident),+ $(,)?) => {
        mod tidings_holds {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
            async fn $race() {
                crate::contest::holds(super::$race).await;
            })+
        }
        mod the_naive_cache_loses {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
            async fn $race() {
                crate::contest::loses(super::$race).await;
            })+
        }
    };
}
pub(crate) use races;

/// Judges an answer.
pub(crate) fn right<T: PartialEq + fmt::Debug>(what: &str, told: &T, right: &T) -> Outcome {
    if told == right { Ok(()) } else { Err(Wrong(format!("{what}: told {told:?}, right was {right:?}"))) }
}

/// Judges a count.
pub(crate) fn at_most(what: &str, counted: i64, most: i64) -> Outcome {
    if counted <= most { Ok(()) } else { Err(Wrong(format!("{what}: {counted}, at most {most} was right"))) }
}

/// Judges a plain read at each of these instances: a version, or that there is nobody.
pub(crate) async fn all_told(instances: [&Users; 2], id: &str, version: Option<i64>) -> Outcome {
    for users in instances {
        right(id, &version_of(users, id).await, &version)?;
    }
    Ok(())
}

/// Judges what becomes of an answer: the patience is how long a wrong one may be given.
pub(crate) async fn right_within(patience: Duration, users: &Users, id: &str, version: Option<i64>) -> Outcome {
    let deadline = Instant::now() + patience;
    loop {
        let judged = right(id, &version_of(users, id).await, &version);
        if judged.is_ok() || Instant::now() > deadline {
            return judged;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// What a plain read says: a version, or that there is nobody.
pub(crate) async fn version_of(users: &Users, id: &str) -> Option<i64> {
    match users.get(id).await {
        Ok(read) => Some(read.version),
        Err(failure) if failure.code == Code::NotFound => None,
        Err(failure) => panic!("{failure}"),
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
