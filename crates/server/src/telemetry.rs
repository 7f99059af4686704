//! Logs and traces of a service. Log lines go to stderr: as text on a terminal, else as JSON. Spans
//! also go to a collector, if one is configured.
//!
//! No call ever waits for stderr: lines go through a bounded buffer, which a thread writes. The
//! messages of panics take the same way.

mod json_fields;
mod log_buffer;
mod log_rate_limit;
mod traces;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::env::{self, VarError};
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::panic;
use std::sync::OnceLock;
use std::thread;

use self::log_buffer::{LineFormat, LogBuffer};
use self::log_rate_limit::LogRateLimit;
use opentelemetry_otlp::ExporterBuildError;
use tracing_subscriber::filter::{ParseError, Targets, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, registry};

pub use traces::Args as TraceArgs;
pub use traces::Exporter;

/// The environment variable with the log filter, e.g. `debug` or `info,tidings_server=debug`.
const VARIABLE: &str = "TIDINGS_LOG";
/// Default filter of crates whose lines help only their developers; the variable can override each.
const QUIET: &str = "h2=warn,hyper=warn,hyper_util=warn,tonic=warn,tower=warn,redis=warn,sqlx=warn,rustls=warn";

/// The log of this process. There is one, like standard error.
static LOG: OnceLock<LogBuffer> = OnceLock::new();

/// Errors that prevent the set-up of logs and traces.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The value of `TIDINGS_LOG` is not a filter.
    #[error("TIDINGS_LOG: '{0}': expected a filter like info or debug,tidings_server=trace")]
    Filter(String, #[source] ParseError),
    /// The value of `TIDINGS_LOG` is not UTF-8.
    #[error("TIDINGS_LOG: not UTF-8: expected a filter like info or debug,tidings_server=trace")]
    NotText,
    /// The thread that writes the log cannot be started.
    #[error("cannot write to standard error")]
    Stderr(#[source] io::Error),
    /// The exporter of spans cannot be created.
    #[error("--otlp-endpoint (TIDINGS_OTLP_ENDPOINT): cannot export spans")]
    Traces(#[from] ExporterBuildError),
}

/// Sends the log lines of this process to stderr, filtered by `TIDINGS_LOG` (default `info`), and
/// its spans to the collector, if one is configured. The exporter sends remaining spans in
/// `finish`. Lines are buffered: [`flush`] has to follow before the process exits.
///
/// Only the first call in a process has an effect. Needs a runtime if there is a collector.
pub fn init(service: &str, traces: &TraceArgs) -> Result<Option<Exporter>, Error> {
    let wanted = match env::var(VARIABLE) {
        Ok(filter) if !filter.is_empty() => filter,
        Ok(_) | Err(VarError::NotPresent) => "info".to_owned(),
        Err(VarError::NotUnicode(_)) => return Err(Error::NotText),
    };
    let filter = filter(&wanted).map_err(|error| Error::Filter(wanted, error))?;
    let log = open_log().map_err(Error::Stderr)?;
    let lines = fmt::layer().with_writer(log.clone());
    let lines = if io::stderr().is_terminal() {
        lines.boxed()
    } else {
        lines.json().flatten_event(true).with_ansi(false).fmt_fields(json_fields::JsonFields).boxed()
    };
    let exporter = Exporter::open(traces, service)?;
    let first = match &exporter {
        None => registry().with(lines).with(filter).with(LogRateLimit::default()).try_init(),
        Some(exporter) => {
            let spans = tracing_opentelemetry::layer().with_tracer(exporter.tracer()).with_location(false);
            let spans = spans.with_threads(false).with_target(false).with_tracked_inactivity(false);
            let spans = spans.with_context_activation(false); // only the current span is ever read
            // The log filter does not affect the exported spans.
            let spans = spans.with_filter(filter_fn(traces::exported));
            registry().with(lines.with_filter(filter)).with(spans).with(LogRateLimit::default()).try_init()
        }
    };
    if first.is_ok() {
        log_panics(log);
        if exporter.is_some() {
            tidings_trace::export();
        }
        tracing::info!(service, version = env!("CARGO_PKG_VERSION"), "starting");
    }
    Ok(exporter)
}

/// Waits until stderr has accepted all log lines; gives up when it accepts none for a second.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.flush();
    }
}

/// Writes a line as it is to stderr, after all lines of the log. No filter affects it.
pub fn print(line: &str) {
    if let Some(log) = LOG.get() {
        log.push(format!("{line}\n").as_bytes());
    }
}

/// Returns the log of this process, and starts its writer at the first call.
fn open_log() -> io::Result<LogBuffer> {
    if let Some(log) = LOG.get() {
        return Ok(log.clone());
    }
    // A descriptor of its own: the lock of `io::stderr` would be held during a write that blocks.
    let sink = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let format = if io::stderr().is_terminal() { LineFormat::Text } else { LineFormat::Json };
    let log = LogBuffer::start(sink, format)?;
    Ok(LOG.get_or_init(|| log).clone())
}

/// Writes the messages of panics to the log. The default hook writes to stderr and could block.
fn log_panics(log: LogBuffer) {
    panic::set_hook(Box::new(move |info| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("<unnamed>");
        let mut message = format!("thread '{name}' {info}"); // "panicked at FILE:LINE:COLUMN: MESSAGE"
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            message = format!("{message}\n{backtrace}");
        }
        log.push_message("ERROR", &message);
    }));
}

/// The later of two directives for one crate wins, so the wanted ones come last.
fn filter(wanted: &str) -> Result<Targets, ParseError> {
    format!("{QUIET},{wanted}").parse()
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn quiet_crates_stay_quiet_unless_named() {
        let all = filter("debug").unwrap().to_string();
        assert!(all.contains("h2=warn") && all.contains("debug"), "{all}");

        let named = filter("debug,h2=trace").unwrap().to_string();
        assert!(named.contains("h2=trace") && !named.contains("h2=warn"), "{named}");
    }

    #[test]
    fn a_malformed_filter_is_an_error() {
        filter("tidings_server=loud").unwrap_err();
    }
}
