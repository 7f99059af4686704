//! The frame of every command of a service: log, runtime, exit code.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use tidings_server::telemetry::TraceArgs;
use tidings_server::{metrics, telemetry};

use crate::error::{ServeError, chain};

/// Time for blocking work to end after the service; a DNS lookup that hangs must not keep the
/// process alive.
const LINGER: Duration = Duration::from_millis(100);

/// Runs a service to its end and returns its exit code: 0 after an orderly end, 1 after a failure,
/// which is logged, and 2 for an invalid setting, which is printed to stderr.
///
/// All log lines have been written when this returns, unless stderr is not read.
pub(crate) fn run(service: &str, traces: &TraceArgs, future: impl Future<Output = Result<(), ServeError>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return not_started(service, &error),
    };
    let entered = runtime.enter();
    let exporter = match telemetry::init(service, traces) {
        Ok(exporter) => exporter,
        Err(error) => return not_started(service, &error),
    };
    metrics::start(service);
    drop(entered);
    let outcome = runtime.block_on(future);
    if let Some(exporter) = exporter {
        exporter.finish();
    }
    runtime.shutdown_timeout(LINGER);
    let code = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Printed like all other invalid settings, independent of the log filter.
        Err(ServeError::Setting(invalid)) => {
            telemetry::print(&format!("{service}: {invalid}"));
            ExitCode::from(2)
        }
        Err(error) => failed(service, &error, 1),
    };
    telemetry::flush();
    code
}

#[expect(clippy::print_stderr, reason = "the log is not set up yet")]
fn not_started(service: &str, error: &dyn Error) -> ExitCode {
    eprintln!("{service}: {}", chain(error));
    ExitCode::from(2)
}

fn failed(service: &str, error: &dyn Error, code: u8) -> ExitCode {
    tracing::error!(service, error = chain(error), "failed");
    ExitCode::from(code)
}
