//! The `tidings` command, built with the suite that runs it.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _points = fail::FailScenario::setup();
    tidings::run()
}
