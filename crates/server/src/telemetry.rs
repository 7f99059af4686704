//! Logs and traces of a service. Log lines go to stderr: as text on a terminal, else as JSON. Spans
//! also go to a collector, if one is configured.

mod json_fields;
mod log_rate_limit;
mod traces;

use std::env::{self, VarError};
use std::io::{self, IsTerminal as _};

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

/// Errors that prevent the set-up of logs and traces.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The value of `TIDINGS_LOG` is not a filter.
    #[error("TIDINGS_LOG: '{0}': expected a filter like info or debug,tidings_server=trace")]
    Filter(String, #[source] ParseError),
    /// The value of `TIDINGS_LOG` is not UTF-8.
    #[error("TIDINGS_LOG: not UTF-8: expected a filter like info or debug,tidings_server=trace")]
    NotText,
    /// The exporter of spans cannot be created.
    #[error("--otlp-endpoint (TIDINGS_OTLP_ENDPOINT): cannot export spans")]
    Traces(#[from] ExporterBuildError),
}

/// Sends the log lines of this process to stderr, filtered by `TIDINGS_LOG` (default `info`), and
/// its spans to the collector, if one is configured. The exporter sends remaining spans in
/// `finish`.
///
/// Only the first call in a process has an effect. Needs a runtime if there is a collector.
pub fn init(service: &str, traces: &TraceArgs) -> Result<Option<Exporter>, Error> {
    let wanted = match env::var(VARIABLE) {
        Ok(filter) => filter,
        Err(VarError::NotPresent) => "info".to_owned(),
        Err(VarError::NotUnicode(_)) => return Err(Error::NotText),
    };
    let filter = filter(&wanted).map_err(|error| Error::Filter(wanted, error))?;
    let lines = fmt::layer().with_writer(io::stderr);
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
        if exporter.is_some() {
            tidings_trace::export();
        }
        tracing::info!(service, version = env!("CARGO_PKG_VERSION"), "starting");
    }
    Ok(exporter)
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
