//! The `tidings` command, built with the suite that runs it.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidings::run()
}
