//! The body of every service's `main`: log, runtime, exit code.

use std::error::Error;
use std::iter;
use std::process::ExitCode;
use std::time::Duration;

use crate::telemetry::TraceArgs;
use crate::{ServeError, metrics, telemetry};

/// Time for blocking work to end after the service has; a lookup that hangs must not keep the process alive.
const LINGER: Duration = Duration::from_millis(100);

/// Runs a service to its end: 0 if that was in order, 1 with one line in the log if not, 2 with one on stderr if a setting is
/// wrong.
pub fn run(service: &str, traces: &TraceArgs, future: impl Future<Output = Result<(), ServeError>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return unbegun(service, &error),
    };
    let entered = runtime.enter();
    let exporter = match telemetry::init(service, traces) {
        Ok(exporter) => exporter,
        Err(error) => return unbegun(service, &error),
    };
    metrics::begin(service);
    drop(entered);
    let outcome = runtime.block_on(future);
    if let Some(exporter) = exporter {
        exporter.finish();
    }
    runtime.shutdown_timeout(LINGER);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // As all settings that are wrong are told, whatever the filter of the log.
        #[expect(clippy::print_stderr, reason = "who runs the command reads it")]
        Err(ServeError::Setting(wrong)) => {
            eprintln!("{service}: {wrong}");
            ExitCode::from(2)
        }
        Err(error) => failed(service, &error, 1),
    }
}

#[expect(clippy::print_stderr, reason = "there is no log yet")]
fn unbegun(service: &str, error: &dyn Error) -> ExitCode {
    eprintln!("{service}: {}", chain(error));
    ExitCode::from(2)
}

fn failed(service: &str, error: &dyn Error, code: u8) -> ExitCode {
    tracing::error!(service, error = chain(error), "failed");
    ExitCode::from(code)
}

/// An error and its sources in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let sources = iter::successors(Some(error), |&error| error.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot bind 127.0.0.1:7401")]
    struct Bind(#[source] io::Error);

    #[test]
    fn an_error_is_told_with_its_cause_in_one_line() {
        let error = Bind(io::Error::other("address in use"));

        assert_eq!(super::chain(&error), "cannot bind 127.0.0.1:7401: address in use");
    }
}
