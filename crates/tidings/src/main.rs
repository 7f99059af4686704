//! The `tidings` command: see `tidings --help`.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// The global allocator. Each call is a task with its own cache-line-aligned allocation, which is
/// slow with the system's allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    tidings::run()
}
