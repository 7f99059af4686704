//! Measures Tidings beside what a user would pick instead, in one go on one machine, and writes BENCHMARKS.md: `make bench`.
//!
//! Everything is called by the load generator of `tidings bench`, in this process; what is called are processes of their own.
//! `installation` starts Tidings on a Postgres that waits for its disk; `postgres`, `raw_redis`, `etcd`, `nats` and `naive`
//! are what it is measured beside; `contests` says what is compared with what, `contest` compares in alternating rounds,
//! `bars` says whether what was stated holds,
//! `survey` measures every scenario of Tidings, `machine` says where, `report` writes it down.
//!
//! With `-- --quick` everything is called for a moment only, and what it writes is no benchmark.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark ends if it can not go on")]
#![expect(clippy::print_stderr, reason = "a benchmark says how far it is")]

mod bars;
mod contest;
mod contests;
mod etcd;
mod installation;
mod machine;
mod naive;
mod nats;
mod postgres;
mod process;
mod raw_redis;
mod report;
mod survey;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mimalloc::MiMalloc;

use self::installation::Installation;
use self::machine::Machine;
use self::process::Programs;

/// As in the command, whose load generator this is.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// How long and how often everything is measured.
#[derive(Clone, Copy, Debug)]
struct Plan {
    quick: bool,
    rounds: usize,
    warm_up: Duration,
    round: Duration,
    /// How long an open loop is counted.
    open: Duration,
}

const WHOLE: Plan = Plan {
    quick: false,
    rounds: 5,
    warm_up: Duration::from_millis(500),
    round: Duration::from_secs(2),
    open: Duration::from_secs(4),
};
const QUICK: Plan = Plan {
    quick: true,
    rounds: 1,
    warm_up: Duration::from_millis(50),
    round: Duration::from_millis(200),
    open: Duration::from_millis(200),
};

#[tokio::main]
async fn main() {
    let plan = if std::env::args().any(|argument| argument == "--quick") { QUICK } else { WHOLE };
    if !plan.quick {
        machine::rests().await;
    }
    let machine = Machine::look();
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("benchmarks");
    let programs = Programs::find(&scratch.join("peers"));
    let installation = Installation::start(&scratch.join("stack")).await;

    let disk = postgres::flushes(&scratch, plan);
    let standings = contests::run(plan, &installation, &programs, &scratch).await;
    let seen = contests::seen(plan, &installation).await;
    let survey = survey::run(plan, &installation).await;
    installation.stop().await;

    let text = report::markdown(plan, &machine, &programs, disk, &standings, &seen, &survey);
    let path = if plan.quick { scratch.join("BENCHMARKS.md") } else { root().join("BENCHMARKS.md") };
    fs::write(&path, text).unwrap();
    eprintln!("written: {}", path.display());
}

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}
