//! Measures Tidings beside its alternatives on one machine, and writes BENCHMARKS.md: `make bench`.
//!
//! This process runs the load generator; everything it calls is a process of its own, so no service
//! is compiled into it. `installation` starts Tidings on a Postgres that waits for its disk.
//! `postgres`, `raw_redis`, `etcd`, `nats` and `naive` are the alternatives. `comparisons` lists
//! the comparisons, `comparison` runs one in alternating rounds, and `round` is one of these;
//! `plan` has their number and durations. `targets` compares figures with the performance targets,
//! `scenarios` measures every scenario of `tidings bench`, `machine` describes the machine, and
//! `report` writes the document.
//!
//! `-- --quick` calls everything only briefly, to check that it works; its figures are meaningless.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark ends if it cannot go on")]
#![expect(clippy::print_stderr, reason = "a benchmark prints its progress")]

mod comparison;
mod comparisons;
mod etcd;
mod installation;
mod machine;
mod naive;
mod nats;
mod plan;
mod postgres;
mod process;
mod raw_redis;
mod report;
mod round;
mod scenarios;
mod targets;

use std::fs;
use std::path::PathBuf;

use mimalloc::MiMalloc;

use self::installation::Installation;
use self::machine::Machine;
use self::plan::{FULL, QUICK};
use self::process::{PeerPrograms, root};

/// The allocator of the `tidings` command, so that `tidings bench` measures the same.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() {
    let plan = if std::env::args().any(|argument| argument == "--quick") { QUICK } else { FULL };
    let tidings = installation::command();
    if !plan.quick {
        machine::wait_until_idle().await;
    }
    let machine = Machine::inspect();
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("benchmarks");
    let programs = PeerPrograms::find(&scratch.join("peers"));
    let installation = Installation::start(tidings, &scratch.join("stack")).await;

    let disk = postgres::flushes_per_second(&scratch, plan);
    let comparisons = comparisons::run(plan, &installation, &programs, &scratch).await;
    let update_visible = comparisons::update_visible(plan, &installation).await;
    let scenarios = scenarios::run(plan, &installation).await;
    installation.stop().await;

    let text = report::markdown(plan, &machine, &programs, disk, &comparisons, &update_visible, &scenarios);
    let path = if plan.quick { scratch.join("BENCHMARKS.md") } else { root().join("BENCHMARKS.md") };
    fs::write(&path, text).unwrap();
    eprintln!("written: {}", path.display());
}
