//! The `tidings` command, built together with the tests that run it.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Every call allocates a task that is aligned to cache lines; the system allocator is slow at
/// that.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _points = fail::FailScenario::setup();
    tidings::run()
}
