//! Runs each race twice. Tidings must win and the naive cache must lose, which proves that the race
//! detects the fault.
//!
//! A race checks the answers of callers and returns a [`RaceVerdict`]. Only a wrong answer makes
//! the naive cache lose. Any other failure panics, and fails both tests.

use std::fmt;
use std::time::Duration;

use fail::FailScenario;
use tidings_user::Config;
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::support::{TestEnv, UserInstance};

/// The implementation that runs a race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contestant {
    Tidings,
    Naive,
}

/// Result of a race.
pub(crate) type RaceVerdict = Result<(), WrongAnswer>;

/// A wrong answer to a caller.
#[derive(Debug)]
pub(crate) struct WrongAnswer(String);

impl WrongAnswer {
    pub(crate) fn new(message: String) -> Self {
        Self(message)
    }

    /// Prefixes the message with the part of the race.
    pub(crate) fn within(self, part: impl fmt::Display) -> Self {
        Self(format!("{part}: {self}"))
    }
}

impl Contestant {
    /// Returns true if a race can check details that only Tidings has: leases, missing keys,
    /// reasons.
    pub(crate) fn is_tidings(self) -> bool {
        self == Self::Tidings
    }

    /// The answer to a reader whose fill is too late: Tidings reads once more, the naive cache
    /// answers with what it read `before`.
    pub(crate) fn late_answer<T>(self, before: T, now: T) -> T {
        if self.is_tidings() { now } else { before }
    }

    /// Starts an instance.
    pub(crate) async fn serve(self, env: &TestEnv) -> UserInstance {
        match self {
            Self::Tidings => env.serve().await,
            Self::Naive => env.serve_naive().await,
        }
    }

    /// Starts two instances with changed settings.
    pub(crate) async fn two_with(self, env: &TestEnv, tune: impl Fn(&mut Config)) -> (UserInstance, UserInstance) {
        match self {
            Self::Tidings => (env.serve_with(&tune).await, env.serve_with(&tune).await),
            Self::Naive => (env.serve_naive_with(&tune).await, env.serve_naive_with(&tune).await),
        }
    }

    /// Starts two instances without a relay: only calls update the cache.
    pub(crate) async fn two(self, env: &TestEnv) -> (UserInstance, UserInstance) {
        match self {
            Self::Tidings => (env.serve_without_relay().await, env.serve_without_relay().await),
            Self::Naive => (env.serve_naive().await, env.serve_naive().await),
        }
    }
}

/// Runs a race that Tidings must win.
pub(crate) async fn holds(race: impl AsyncFnOnce(Contestant) -> RaceVerdict) {
    let _scenario = FailScenario::setup();
    if let Err(wrong) = race(Contestant::Tidings).await {
        panic!("{wrong}");
    }
}

/// Runs a race that the naive cache must lose.
pub(crate) async fn loses(race: impl AsyncFnOnce(Contestant) -> RaceVerdict) {
    let _scenario = FailScenario::setup();
    assert!(race(Contestant::Naive).await.is_err(), "the naive cache did not lose, so this race detects nothing");
}

/// Makes two tests of each race, under its name: Tidings wins in one, the naive cache loses in the
/// other.
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

/// Checks an answer.
pub(crate) fn check<T: PartialEq + fmt::Debug>(what: &str, actual: &T, expected: &T) -> RaceVerdict {
    if actual == expected { Ok(()) } else { Err(WrongAnswer(format!("{what}: got {actual:?}, expected {expected:?}"))) }
}

/// Checks an upper bound of a count.
pub(crate) fn at_most(what: &str, count: i64, limit: i64) -> RaceVerdict {
    if count <= limit { Ok(()) } else { Err(WrongAnswer(format!("{what}: got {count}, expected at most {limit}"))) }
}

/// Checks a cached read on each instance; `None` expects an absent user.
pub(crate) async fn check_version(instances: [&UserInstance; 2], id: &str, version: Option<i64>) -> RaceVerdict {
    for users in instances {
        check(id, &version_of(users, id).await, &version)?;
    }
    Ok(())
}

/// Checks that cached reads return this version within `patience`; until then another is allowed.
pub(crate) async fn check_within(
    patience: Duration,
    users: &UserInstance,
    id: &str,
    version: Option<i64>,
) -> RaceVerdict {
    let deadline = Instant::now() + patience;
    loop {
        let verdict = check(id, &version_of(users, id).await, &version);
        if verdict.is_ok() || Instant::now() > deadline {
            return verdict;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Version returned by a cached read; `None` if the user is absent.
pub(crate) async fn version_of(users: &UserInstance, id: &str) -> Option<i64> {
    match users.get(id).await {
        Ok(read) => Some(read.version),
        Err(failure) if failure.code == Code::NotFound => None,
        Err(failure) => panic!("{failure}"),
    }
}

impl fmt::Display for WrongAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
