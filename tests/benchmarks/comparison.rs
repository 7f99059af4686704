//! A comparison: several systems do the same work, measured in alternating rounds.

use tidings_load::BenchCall;

use crate::installation::Installation;
use crate::plan::Plan;
use crate::postgres::Pgbench;
use crate::round::{Round, run_closed_loop};

/// A system that takes part in a comparison.
pub(crate) struct Candidate {
    pub(crate) name: &'static str,
    /// Operations used, guarantees given and omitted.
    pub(crate) remarks: &'static str,
    driver: LoadDriver,
}

/// The source of the load on a candidate.
enum LoadDriver {
    Calls(BenchCall),
    Pgbench(Pgbench),
}

/// An operation and the candidates that perform it; the first candidate is Tidings.
pub(crate) struct Comparison {
    /// The operation, e.g. "Reading a cached user".
    pub(crate) title: &'static str,
    /// Data and conditions of the measurement.
    pub(crate) method: String,
    /// Concurrent callers.
    pub(crate) callers: usize,
    pub(crate) candidates: Vec<Candidate>,
}

/// The result of a comparison.
pub(crate) struct ComparisonResult {
    pub(crate) title: &'static str,
    pub(crate) method: String,
    /// Name, remarks and rounds of each candidate.
    pub(crate) rounds: Vec<(&'static str, &'static str, Vec<Round>)>,
}

impl Candidate {
    /// Creates a candidate that the load generator calls.
    pub(crate) fn calls(name: &'static str, remarks: &'static str, call: BenchCall) -> Self {
        Self { name, remarks, driver: LoadDriver::Calls(call) }
    }

    /// Creates a candidate that pgbench measures.
    pub(crate) fn pgbench(name: &'static str, remarks: &'static str, pgbench: Pgbench) -> Self {
        Self { name, remarks, driver: LoadDriver::Pgbench(pgbench) }
    }

    async fn round(&self, plan: Plan, callers: usize) -> Round {
        match &self.driver {
            LoadDriver::Calls(call) => Round::from(&run_closed_loop(plan, call, callers).await),
            LoadDriver::Pgbench(pgbench) => pgbench.round(plan.round),
        }
    }
}

impl Comparison {
    /// Runs all rounds. Every other round reverses the order of the candidates, so that none always
    /// follows the same one.
    pub(crate) async fn run(self, plan: Plan, installation: &Installation) -> ComparisonResult {
        eprintln!("{} ...", self.title);
        let mut rounds = vec![Vec::new(); self.candidates.len()];
        for number in 0..plan.rounds {
            let mut order: Vec<_> = (0..self.candidates.len()).collect();
            if number % 2 == 1 {
                order.reverse();
            }
            for index in order {
                installation.wait_for_relay().await;
                rounds[index].push(self.candidates[index].round(plan, self.callers).await);
            }
        }
        let candidates = self.candidates.iter().map(|candidate| (candidate.name, candidate.remarks));
        let rounds = candidates.zip(rounds).map(|((name, remarks), rounds)| (name, remarks, rounds)).collect();
        ComparisonResult { title: self.title, method: self.method, rounds }
    }
}
