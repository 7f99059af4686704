//! Several ways to do one thing, measured in turns.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidings::load::{self, Call, Load, Pace, Tally};

use crate::Plan;
use crate::installation::Installation;
use crate::postgres::Pgbench;

/// One way to do it.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    /// What is to be known of it to compare: what it promises, and what it leaves out.
    pub(crate) note: &'static str,
    how: How,
}

enum How {
    Calls(Call),
    Pgbench(Pgbench),
}

/// What one round of one contender showed.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    /// Things done in a second.
    pub(crate) rate: f64,
    /// Half, and 99 of 100, were done in so long; unknown where somebody else measures, or nothing was done.
    pub(crate) latency: Option<(Duration, Duration)>,
    /// Why things were not done, and how often.
    pub(crate) faults: BTreeMap<String, u64>,
}

/// A thing, and the ways to do it; the first is that of Tidings.
pub(crate) struct Contest {
    /// What is done, e.g. "Reading a user".
    pub(crate) title: &'static str,
    /// How it is done, for whoever wants to judge.
    pub(crate) method: String,
    /// Who does it at once.
    pub(crate) callers: usize,
    pub(crate) contenders: Vec<Contender>,
}

/// How a contest went.
pub(crate) struct Standing {
    pub(crate) title: &'static str,
    pub(crate) method: String,
    /// Each contender with its rounds.
    pub(crate) rounds: Vec<(&'static str, &'static str, Vec<Round>)>,
}

impl Contender {
    pub(crate) fn calls(name: &'static str, note: &'static str, call: Call) -> Self {
        Self { name, note, how: How::Calls(call) }
    }

    pub(crate) fn pgbench(name: &'static str, note: &'static str, pgbench: Pgbench) -> Self {
        Self { name, note, how: How::Pgbench(pgbench) }
    }

    async fn round(&self, plan: Plan, callers: usize) -> Round {
        match &self.how {
            How::Calls(call) => Round::from(&closed(plan, call, callers).await),
            How::Pgbench(pgbench) => pgbench.round(plan.round),
        }
    }
}

impl Contest {
    /// Runs all rounds. Odd ones go backwards, so that nobody always follows the same one.
    pub(crate) async fn run(self, plan: Plan, installation: &Installation) -> Standing {
        eprintln!("{} ...", self.title);
        let mut rounds = vec![Vec::new(); self.contenders.len()];
        for number in 0..plan.rounds {
            let mut order: Vec<_> = (0..self.contenders.len()).collect();
            if number % 2 == 1 {
                order.reverse();
            }
            for place in order {
                installation.quiet().await;
                rounds[place].push(self.contenders[place].round(plan, self.callers).await);
            }
        }
        let contenders = self.contenders.iter().map(|contender| (contender.name, contender.note));
        let rounds = contenders.zip(rounds).map(|((name, note), rounds)| (name, note, rounds)).collect();
        Standing { title: self.title, method: self.method, rounds }
    }
}

impl From<&Tally> for Round {
    fn from(tally: &Tally) -> Self {
        let latency = (tally.latency.percentile(50.0), tally.latency.percentile(99.0));
        let known = tally.latency.count() > 0;
        Self { rate: tally.rate(), latency: known.then_some(latency), faults: faults(tally) }
    }
}

/// Why calls failed, and how often.
pub(crate) fn faults(tally: &Tally) -> BTreeMap<String, u64> {
    let unsent = (tally.unsent > 0).then(|| ("never sent".to_owned(), tally.unsent));
    tally.faults.iter().map(|(fault, count)| (fault.to_string(), *count)).chain(unsent).collect()
}

/// One round of a closed loop.
pub(crate) async fn closed(plan: Plan, call: &Call, callers: usize) -> Tally {
    let load =
        Load { pace: Pace::Closed, in_flight: callers, warm_up: plan.warm_up, time: plan.round, grace: Duration::ZERO };
    load::run(&load, call, &Arc::default()).await
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median of how much one did for each that the other did, round by round.
pub(crate) fn ratio(own: &[Round], other: &[Round]) -> f64 {
    median(own.iter().zip(other).map(|(own, other)| own.rate / other.rate).collect())
}
