//! Where the log lines of a service go: to stderr, for people on a terminal, as JSON otherwise. Spans go to a collector, too,
//! if one is named.

mod brake;
mod fields;
mod traces;

use std::env::{self, VarError};
use std::io::{self, IsTerminal as _};

use self::brake::Brake;
use opentelemetry_otlp::ExporterBuildError;
use tracing_subscriber::filter::{ParseError, Targets, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, registry};

pub use traces::Args as TraceArgs;
pub use traces::Exporter;

/// The environment variable that says what is logged, e.g. `debug` or `info,tidings_server=debug`.
const VARIABLE: &str = "TIDINGS_LOG";
/// Crates whose lines help only those who work on them; the variable can turn each on again.
const QUIET: &str = "h2=warn,hyper=warn,hyper_util=warn,tonic=warn,tower=warn,redis=warn,sqlx=warn,rustls=warn";

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The value of `TIDINGS_LOG` is no filter.
    #[error("TIDINGS_LOG: '{0}': expected a filter like info or debug,tidings_server=trace")]
    Filter(String, #[source] ParseError),
    /// The value of `TIDINGS_LOG` is not UTF-8.
    #[error("TIDINGS_LOG: not UTF-8: expected a filter like info or debug,tidings_server=trace")]
    NotText,
    /// The spans can not be exported.
    #[error("--otlp-endpoint (TIDINGS_OTLP_ENDPOINT)")]
    Traces(#[from] ExporterBuildError),
}

/// Sends the log lines of this process to stderr, filtered by `TIDINGS_LOG` (default `info`), and its spans to the collector, if
/// there is one: what is left of these is sent when the exporter is told to finish.
///
/// The first call of a process decides; a later one changes nothing. Needs a runtime if there is a collector.
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
        lines.json().flatten_event(true).with_ansi(false).fmt_fields(fields::Fields).boxed()
    };
    let exporter = Exporter::open(traces, service)?;
    let first = match &exporter {
        None => registry().with(lines).with(filter).with(Brake::default()).try_init(),
        Some(exporter) => {
            let spans = tracing_opentelemetry::layer().with_tracer(exporter.tracer()).with_location(false);
            let spans = spans.with_threads(false).with_target(false).with_tracked_inactivity(false);
            let spans = spans.with_context_activation(false); // nobody asks for more than the span that we are in
            // What is logged decides nothing on what is exported.
            let spans = spans.with_filter(filter_fn(traces::exported));
            registry().with(lines.with_filter(filter)).with(spans).with(Brake::default()).try_init()
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

/// Of two directives for the same crate the later one counts, so the wanted ones come last.
fn filter(wanted: &str) -> Result<Targets, ParseError> {
    format!("{QUIET},{wanted}").parse()
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn quiet_crates_stay_quiet_unless_they_are_named() {
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
