//! Where the log lines of a service go: to stderr, for people on a terminal, as JSON otherwise.

use std::env::{self, VarError};
use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

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
}

/// Sends the log lines of this process to stderr, filtered by `TIDINGS_LOG` (default `info`).
///
/// The first call of a process decides; a later one changes nothing.
pub fn init(service: &str) -> Result<(), Error> {
    let wanted = match env::var(VARIABLE) {
        Ok(filter) => filter,
        Err(VarError::NotPresent) => "info".to_owned(),
        Err(VarError::NotUnicode(_)) => return Err(Error::NotText),
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter(&wanted).map_err(|error| Error::Filter(wanted, error))?)
        .with_writer(io::stderr);
    let first = if io::stderr().is_terminal() {
        lines.try_init()
    } else {
        lines.json().flatten_event(true).with_ansi(false).try_init()
    };
    if first.is_ok() {
        tracing::info!(service, version = env!("CARGO_PKG_VERSION"), "starting");
    }
    Ok(())
}

/// Of two directives for the same crate the later one counts, so the wanted ones come last.
fn filter(wanted: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("{QUIET},{wanted}"))
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
