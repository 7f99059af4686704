//! The name of a flag and its expected format, for error lines.

use std::error::Error;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command};

use super::{CommandLine, flag, secret_files};

/// Values that most flags reject with the expected format.
const INVALID_VALUES: [&str; 2] = ["", "-1"];

impl CommandLine {
    /// Returns the flag and its variable: `--drain (TIDINGS_DRAIN)`.
    pub(super) fn title(&self, arg: &Arg) -> String {
        let variable = if self.from_files.contains(&flag(arg)) {
            secret_files::variable(arg)
        } else {
            arg.get_env().map(|name| name.to_string_lossy().into_owned())
        };
        flag(arg) + &variable.map(|name| format!(" ({name})")).unwrap_or_default()
    }

    /// Returns the expected format, e.g. `expected a duration like 800ms or 5s`: in the words of
    /// the flag's parser, from its error for this value or for another one.
    pub(super) fn expectation(&self, arg: &Arg, error_text: Option<String>) -> String {
        // The command that has the flag is parsed on its own.
        let flag = flag(arg);
        let owner = self.commands().into_iter().rev().find(|it| it.get_arguments().any(|other| other == arg));
        let probe_errors = owner
            .into_iter()
            .flat_map(|owner| INVALID_VALUES.iter().filter_map(|value| probe_error(owner, &flag, value)));
        let texts: Vec<_> = error_text.into_iter().chain(probe_errors).collect();
        let stated_format = texts.iter().find_map(|text| stated_format(text));
        stated_format.or_else(|| texts.iter().find_map(|text| range(text))).unwrap_or_else(|| {
            let names = arg.get_value_names().unwrap_or_default();
            let takes = arg.get_action().takes_values();
            if takes { format!("expected {}", names.join(" ")) } else { "expected no value".to_owned() }
        })
    }
}

/// Extracts the expected format from a parser's error; some errors begin with the value.
fn stated_format(text: &str) -> Option<String> {
    let at = text.find("expected ")?;
    (at == 0 || text[..at].ends_with(": ")).then(|| text[at..].to_owned())
}

/// Returns the error of a flag for this value.
fn probe_error(command: &Command, flag: &str, value: &str) -> Option<String> {
    let command = command.clone().no_binary_name(true);
    rejection_reason(&command.try_get_matches_from([format!("{flag}={value}")]).err()?)
}

/// Returns the reason for which clap, or the parser of a flag, rejected a value.
pub(super) fn rejection_reason(error: &clap::Error) -> Option<String> {
    match (error.source(), error.get(ContextKind::ValidValue)) {
        (Some(source), _) => Some(source.to_string()),
        (None, Some(ContextValue::Strings(values))) if !values.is_empty() => {
            Some(format!("expected {}", values.join(" or ")))
        }
        _ => None,
    }
}

/// Extracts the range of a number from clap's `-1 is not in 1..=1000`.
fn range(text: &str) -> Option<String> {
    let (_, range) = text.split_once(" is not in ")?;
    let (first, last) = range.split_once("..")?;
    Some(format!("expected {first} to {}", last.trim_start_matches('=')))
}
