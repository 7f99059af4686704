//! The `tidings` command: see `tidings --help`.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Each call is a task with memory of its own, aligned to cache lines, for which the system's allocator takes long.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    tidings::run()
}
