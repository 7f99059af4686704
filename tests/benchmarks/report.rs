//! The text of BENCHMARKS.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tidings_load::RunTally;

use crate::comparison::ComparisonResult;
use crate::comparisons::TIDINGS;
use crate::machine::{Machine, is_idle};
use crate::plan::Plan;
use crate::process::PeerPrograms;
use crate::round::{failures, median, ratio};
use crate::scenarios::ScenarioResult;
use crate::targets;

const METHOD: &str = "\
- Everything runs on one machine: the load generator, the measured services, Postgres and Redis.
  They share its cores, so the figures are lower bounds, and a service called over gRPC pays for
  both ends of its connections. Ratios carry over to other machines better than rates, and neither
  carries over well.
- One load generator calls all candidates (that of `tidings bench`, over 4 connections), except
  pgbench, which generates its own load.
- Side by side: closed loops of 64 callers unless stated otherwise, and medians of alternating
  rounds. \"vs Tidings\" is the rate divided by that of Tidings; above 1 the candidate is faster. It
  is the median of the ratios of the rounds, which a slow minute of the machine does not distort. No
  round starts before the relay of history has published all messages.
- All scenarios: a closed loop measures the capacity, then an open loop at half of that rate
  measures the latency from the intended start time of each call (docs/bench.md).
- Postgres waits for its disk at every commit (`fsync` and `synchronous_commit` are on), so user,
  history, pgbench and the inserts of the naive patterns are durable, as is etcd. Redis persists
  nothing: locks and channels promise less than etcd, as their rows state.";

/// Returns the whole document.
pub(crate) fn markdown(
    plan: Plan,
    machine: &Machine,
    programs: &PeerPrograms,
    disk: Option<f64>,
    comparisons: &[ComparisonResult],
    update_visible: &RunTally,
    scenarios: &[ScenarioResult],
) -> String {
    let mut text =
        "# Benchmarks\n\nWritten by `make bench`; do not edit. Losses have a section of their own.\n\n".to_owned();
    if plan.quick {
        text.push_str("**A quick run, which only checks that the benchmarks work: its figures are meaningless.**\n\n");
    }
    if !is_idle(machine.load, machine.cores) {
        text.push_str("**The machine was busy before the run: the figures mean little.**\n\n");
    }
    text.push_str("## Machine\n\n| | |\n|---|---|\n");
    for (name, value) in machine.rows(programs) {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    if let Some(disk) = disk {
        let _ =
            writeln!(text, "| disk | {disk:.0} flushes of 8 KiB per second (`pg_test_fsync`, fdatasync, one writer) |");
    }
    let rounds = format!("{} rounds of {:?}, each after a warm-up of {:?}", plan.rounds, plan.round, plan.warm_up);
    let _ = write!(text, "\n## Method\n\n{METHOD}\n- {rounds}.\n\n## Side by side\n");
    for result in comparisons {
        comparison_section(&mut text, result);
    }
    text.push_str(&targets::section(comparisons, update_visible));
    losses_section(&mut text, comparisons);
    scenarios_section(&mut text, scenarios);
    text
}

fn comparison_section(text: &mut String, result: &ComparisonResult) {
    let ComparisonResult { title, method, rounds } = result;
    let _ = write!(text, "\n### {title}\n\n{method}\n\n");
    text.push_str(
        "| | per second | vs Tidings | min to max | p50 ms | p99 ms | failed | remarks |\n\
         |---|--:|--:|--:|--:|--:|--:|---|\n",
    );
    for (name, remarks, own) in rounds {
        let rates = own.iter().map(|round| round.rate);
        let (min, max) = rates.clone().fold((f64::MAX, 0f64), |(min, max), rate| (min.min(rate), max.max(rate)));
        let latency = |percentile: fn((Duration, Duration)) -> Duration| {
            let known: Option<Vec<_>> =
                own.iter().map(|round| round.latency.map(|both| millis(percentile(both)))).collect();
            known.map_or("-".to_owned(), |known| format!("{:.2}", median(known)))
        };
        let _ = writeln!(
            text,
            "| {name} | {:.0} | {:.2} | {min:.0} to {max:.0} | {} | {} | {} | {remarks} |",
            median(rates.collect()),
            ratio(own, &rounds[0].2),
            latency(|both| both.0),
            latency(|both| both.1),
            own.iter().flat_map(|round| round.failures.values()).sum::<u64>(),
        );
    }
    failures_line(text, rounds.iter().flat_map(|(name, _, own)| own.iter().map(move |round| (*name, &round.failures))));
}

/// Writes the failed calls by candidate or scenario and by cause, if any.
fn failures_line<'a>(text: &mut String, all: impl Iterator<Item = (&'a str, &'a BTreeMap<String, u64>)>) {
    let mut counts = BTreeMap::<_, u64>::new();
    for (name, failures) in all {
        for (failure, count) in failures {
            *counts.entry((name, failure.as_str())).or_default() += count;
        }
    }
    let items: Vec<_> = counts.iter().map(|((name, failure), count)| format!("{name}: {count} x {failure}")).collect();
    if !items.is_empty() {
        let _ = writeln!(text, "\nFailed: {}.", items.join("; "));
    }
}

/// Writes the comparisons in which another system is faster than Tidings.
fn losses_section(text: &mut String, comparisons: &[ComparisonResult]) {
    text.push_str("\n## Comparisons that Tidings loses\n\n| | faster | times | remarks |\n|---|---|--:|---|\n");
    for ComparisonResult { title, rounds, .. } in comparisons {
        for (name, remarks, own) in rounds[1..].iter().filter(|(name, _, _)| !name.starts_with(TIDINGS)) {
            let ratio = ratio(own, &rounds[0].2);
            if ratio > 1.0 {
                let _ = writeln!(text, "| {title} | {name} | {ratio:.1} | {remarks} |");
            }
        }
    }
}

fn scenarios_section(text: &mut String, scenarios: &[ScenarioResult]) {
    text.push_str(
        "\n## All scenarios\n\nCapacity, then latency in ms at half of it. `tidings bench --list` describes each scenario.\n\n\
         | | callers | calls/s | items/s | open-loop rate | p50 | p99 | p99.9 | max | late | failed |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for ScenarioResult { name, callers, closed, rate, open } in scenarios {
        let latency = &open.latency;
        let times = [latency.percentile(50.0), latency.percentile(99.0), latency.percentile(99.9), latency.max()];
        let times = times.map(|time| format!("{:.2}", millis(time))).join(" | ");
        let _ = writeln!(
            text,
            "| {name} | {callers} | {:.0} | {:.0} | {rate:.0} | {times} | {} | {} |",
            closed.rate(),
            closed.items_rate(),
            open.late,
            closed.failed() + open.failed(),
        );
    }
    let all: Vec<_> = scenarios
        .iter()
        .flat_map(|ScenarioResult { name, closed, open, .. }| [(*name, failures(closed)), (*name, failures(open))])
        .collect();
    failures_line(text, all.iter().map(|(name, failures)| (*name, failures)));
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
