//! The `tidings` command: see `tidings --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidings::run()
}
