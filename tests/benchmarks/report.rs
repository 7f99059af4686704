//! Writes BENCHMARKS.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tidings::load::Tally;

use crate::Plan;
use crate::bars;
use crate::contest::{Standing, faults, median, ratio};
use crate::contests::OURS;
use crate::machine::{Machine, is_quiet};
use crate::process::Programs;
use crate::survey::Entry;

const METHOD: &str = "\
- Everything runs on this one machine at once: the load generator, what it calls, Postgres and Redis. They share its cores, so that
  the figures are lower bounds, and a program that is called over gRPC pays for two ends of it here. Ratios carry over to other
  machines better than rates do, and neither carries over well.
- One load generator calls all of them (that of `tidings bench`, over 4 connections), but for pgbench, which calls by itself.
- Side by side: closed loops of 64 callers, unless said otherwise; the medians of alternating rounds. \"of Tidings\" is how much one does for each that
  Tidings does: above 1 it is faster. It is the median of the ratios of each round, which a slow minute of the machine does not
  spoil. Before each round it is waited until history has published what it took.
- Every scenario: a closed loop says how much can be done; then an open loop at half of that rate says how long it takes,
  counted from when each call should have begun (docs/bench.md).
- Postgres waits for its disk at every commit (`fsync` and `synchronous_commit` are on), so user and history are durable in the full
  sense, as are pgbench, the inserts of the naive patterns, and etcd. Redis keeps nothing on disk: locks and channels promise
  less than etcd does, and the rows say so.";

/// The whole document.
pub(crate) fn markdown(
    plan: Plan,
    machine: &Machine,
    programs: &Programs,
    disk: Option<f64>,
    standings: &[Standing],
    seen: &Tally,
    survey: &[Entry],
) -> String {
    let mut text = "# Benchmarks\n\nWritten by `make bench`; do not edit. Losses are listed, too.\n\n".to_owned();
    if plan.quick {
        text.push_str("**A quick run, which only shows that it works: its figures mean nothing.**\n\n");
    }
    if !is_quiet(machine.load, machine.cores) {
        text.push_str("**The machine was busy with something else: its figures mean little.**\n\n");
    }
    text.push_str("## Where\n\n| | |\n|---|---|\n");
    for (what, value) in machine.rows(programs) {
        let _ = writeln!(text, "| {what} | {value} |");
    }
    if let Some(disk) = disk {
        let _ =
            writeln!(text, "| disk | {disk:.0} flushes of 8 KiB a second (`pg_test_fsync`, fdatasync, one writer) |");
    }
    let rounds = format!("{} rounds of {:?} after {:?} of warming up", plan.rounds, plan.round, plan.warm_up);
    let _ = write!(text, "\n## How\n\n{METHOD}\n- {rounds}.\n\n## Side by side\n");
    for standing in standings {
        contest(&mut text, standing);
    }
    text.push_str(&bars::table(standings, seen));
    losses(&mut text, standings);
    scenarios(&mut text, survey);
    text
}

fn contest(text: &mut String, standing: &Standing) {
    let Standing { title, method, rounds } = standing;
    let _ = write!(text, "\n### {title}\n\n{method}\n\n");
    text.push_str(
        "| | a second | of Tidings | rounds | p50 ms | p99 ms | failed | |\n|---|--:|--:|--:|--:|--:|--:|---|\n",
    );
    for (name, note, own) in rounds {
        let rates = own.iter().map(|round| round.rate);
        let (least, most) =
            rates.clone().fold((f64::MAX, 0f64), |(least, most), rate| (least.min(rate), most.max(rate)));
        let latency = |which: fn((Duration, Duration)) -> Duration| {
            let known: Option<Vec<_>> = own.iter().map(|round| round.latency.map(|both| millis(which(both)))).collect();
            known.map_or("-".to_owned(), |known| format!("{:.2}", median(known)))
        };
        let _ = writeln!(
            text,
            "| {name} | {:.0} | {:.2} | {least:.0} to {most:.0} | {} | {} | {} | {note} |",
            median(rates.collect()),
            ratio(own, &rounds[0].2),
            latency(|both| both.0),
            latency(|both| both.1),
            own.iter().flat_map(|round| round.faults.values()).sum::<u64>(),
        );
    }
    failures(text, rounds.iter().flat_map(|(name, _, own)| own.iter().map(move |round| (*name, &round.faults))));
}

/// Why calls failed.
fn failures<'a>(text: &mut String, all: impl Iterator<Item = (&'a str, &'a BTreeMap<String, u64>)>) {
    let mut counts = BTreeMap::<_, u64>::new();
    for (name, faults) in all {
        for (fault, count) in faults {
            *counts.entry((name, fault.as_str())).or_default() += count;
        }
    }
    let lines: Vec<_> = counts.iter().map(|((name, fault), count)| format!("{name}: {count} x {fault}")).collect();
    if !lines.is_empty() {
        let _ = writeln!(text, "\nFailed: {}.", lines.join("; "));
    }
}

/// Who is faster than Tidings at what.
fn losses(text: &mut String, standings: &[Standing]) {
    text.push_str("\n## Where Tidings loses\n\n");
    for Standing { title, rounds, .. } in standings {
        for (name, note, own) in rounds[1..].iter().filter(|(name, _, _)| !name.starts_with(OURS)) {
            let ratio = ratio(own, &rounds[0].2);
            if ratio > 1.0 {
                let _ = writeln!(text, "- {title}: {name} does {ratio:.1} times as much ({note}).");
            }
        }
    }
}

fn scenarios(text: &mut String, survey: &[Entry]) {
    text.push_str(
        "\n## Every scenario\n\nCapacity, then latency in ms at half of it. `tidings bench --list` says what each does.\n\n\
         | | callers | calls/s | items/s | at a rate of | p50 | p99 | p99.9 | max | late | failed |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for Entry { name, callers, closed, half, open } in survey {
        let latency = &open.latency;
        let times = [latency.percentile(50.0), latency.percentile(99.0), latency.percentile(99.9), latency.max()];
        let times = times.map(|time| format!("{:.2}", millis(time))).join(" | ");
        let _ = writeln!(
            text,
            "| {name} | {callers} | {:.0} | {:.0} | {half:.0} | {times} | {} | {} |",
            closed.rate(),
            closed.items_rate(),
            open.late,
            closed.failed() + open.failed(),
        );
    }
    let faults: Vec<_> = survey
        .iter()
        .flat_map(|Entry { name, closed, open, .. }| [(*name, faults(closed)), (*name, faults(open))])
        .collect();
    failures(text, faults.iter().map(|(name, faults)| (*name, faults)));
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
