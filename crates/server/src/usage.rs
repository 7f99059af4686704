//! Reads the command line and the environment, and words what is wrong with them.
//!
//! clap's own message repeats the value, also one that came from the environment and holds a password, and never names the
//! variable.

use std::process;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, Parser};

/// Reads the arguments of this process; ends it with 2 and one line if they are wrong, with 0 after `--help`.
pub fn parse<P: Parser>() -> P {
    P::try_parse().unwrap_or_else(|error| {
        let Some(line) = complaint(&error, P::command()) else {
            error.exit(); // help, version, and what names no value
        };
        #[expect(clippy::print_stderr, reason = "there is no log yet")]
        {
            eprintln!("{}: {line}", P::command().get_name());
        }
        process::exit(2);
    })
}

/// `--drain (TIDINGS_DRAIN): '5x': expected a duration like 800ms or 5s`, a secret as `(not shown)`.
fn complaint(error: &clap::Error, mut command: Command) -> Option<String> {
    if !matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) {
        return None;
    }
    command.build();
    let (Some(ContextValue::String(named)), Some(ContextValue::String(value))) =
        (error.get(ContextKind::InvalidArg), error.get(ContextKind::InvalidValue))
    else {
        return None;
    };
    let flag = named.split(' ').next().unwrap_or(named);
    let arg = find(&command, flag)?;
    let variable = arg.get_env().map(|name| format!(" ({})", name.to_string_lossy())).unwrap_or_default();
    let shown = if arg.is_hide_env_values_set() { "(not shown)".to_owned() } else { format!("'{value}'") };
    let expected = std::error::Error::source(error).map_or_else(
        || match error.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(values)) => format!("expected one of {}", values.join(", ")),
            _ => "expected another value".to_owned(),
        },
        ToString::to_string,
    );
    Some(format!("{flag}{variable}: {shown}: {expected}"))
}

/// The argument of this flag, in the command or below it.
fn find<'a>(command: &'a Command, flag: &str) -> Option<&'a Arg> {
    let here = command.get_arguments().find(|arg| arg.get_long().is_some_and(|long| flag == format!("--{long}")));
    here.or_else(|| command.get_subcommands().find_map(|below| find(below, flag)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    enum Service {
        Serve {
            #[arg(long, env = "TIDINGS_TEST_DRAIN", value_parser = crate::args::duration)]
            drain: Option<humantime::Duration>,
            #[arg(long, env = "TIDINGS_TEST_URL", hide_env_values = true, value_parser = url)]
            url: Option<String>,
        },
    }

    fn url(_: &str) -> Result<String, &'static str> {
        Err("expected postgres://HOST/DATABASE")
    }

    fn complaint_of(arguments: &[&str]) -> Option<String> {
        let error = Service::try_parse_from(arguments).unwrap_err();
        complaint(&error, <Service as clap::CommandFactory>::command())
    }

    #[test]
    fn a_wrong_value_is_told_with_flag_variable_and_expectation() {
        let line = complaint_of(&["test", "serve", "--drain", "5x"]).unwrap();

        assert_eq!(line, "--drain (TIDINGS_TEST_DRAIN): '5x': expected a duration like 800ms or 5s");
    }

    #[test]
    fn a_secret_is_not_shown() {
        let line = complaint_of(&["test", "serve", "--url", "mysql://ada:secret@db"]).unwrap();

        assert_eq!(line, "--url (TIDINGS_TEST_URL): (not shown): expected postgres://HOST/DATABASE");
    }

    #[test]
    fn what_is_no_wrong_value_is_left_to_clap() {
        assert_eq!(complaint_of(&["test", "serve", "--nonsense"]), None);
        assert_eq!(complaint_of(&["test", "--help"]), None);
    }
}
