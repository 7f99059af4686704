//! Parses the command line and the environment, and reports all invalid settings at once: one line
//! per flag, with its variable, the value and the expected format.
//!
//! clap's own message names only the first invalid value, shows it even if it is a password from
//! the environment, and never names the variable. A secret may also be in a file, which
//! `<VARIABLE>_FILE` names. An empty variable is an unset one.

mod secret_files;
mod wording;

use std::collections::HashSet;
use std::env::{self, VarError};
use std::ffi::{OsStr, OsString};
use std::process;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command, Parser};

/// Parses the arguments of this process. Exits with 2 and a line for each invalid setting, or with
/// 0 after `--help`.
pub fn parse<P: Parser>() -> P {
    P::from_arg_matches_mut(&mut matches_of(P::command())).unwrap_or_else(|error| error.exit())
}

/// Like [`parse`], for a command line that no type describes.
pub(crate) fn matches_of(command: Command) -> ArgMatches {
    let name = command.get_name().to_owned();
    match CommandLine::new(command, env::args_os().collect()).parse() {
        Ok(matches) => matches,
        Err(UsageError::Clap(error)) => error.exit(),
        Err(UsageError::Lines(lines)) => {
            #[expect(clippy::print_stderr, reason = "the log is not set up yet")]
            for line in lines {
                eprintln!("{name}: {line}");
            }
            process::exit(2)
        }
    }
}

/// Errors of a command line.
#[derive(Debug)]
enum UsageError {
    /// `--help`, `--version`, and errors that concern no flag: clap prints them.
    Clap(Box<clap::Error>),
    /// One line for each invalid setting.
    Lines(Vec<String>),
}

/// A command line while it is parsed.
#[derive(Debug)]
struct CommandLine {
    command: Command,
    /// Names of the subcommands on the command line, outermost first.
    path: Vec<String>,
    arguments: Vec<OsString>,
    /// Index of the first argument of the innermost subcommand.
    first_argument: usize,
    /// Flags with a value from a file.
    from_files: HashSet<String>,
    lines: Vec<String>,
}

impl CommandLine {
    fn new(command: Command, arguments: Vec<OsString>) -> Self {
        let (mut path, mut first_argument, mut inner) = (Vec::new(), 1, &command);
        for (index, argument) in arguments.iter().enumerate().skip(1).take_while(|(_, argument)| *argument != "--") {
            if let Some(subcommand) = inner.find_subcommand(argument) {
                path.push(subcommand.get_name().to_owned());
                (first_argument, inner) = (index + 1, subcommand);
            }
        }
        Self { command, path, arguments, first_argument, from_files: HashSet::new(), lines: Vec::new() }
    }

    /// Parses repeatedly, each time without the flag that was invalid the last time.
    fn parse(mut self) -> Result<ArgMatches, UsageError> {
        self.load_secret_files();
        self.reject_non_utf8();
        loop {
            match without_empty_variables(self.command.clone()).try_get_matches_from(&self.arguments) {
                Ok(matches) if self.lines.is_empty() => return Ok(matches),
                Ok(_) => return Err(UsageError::Lines(self.lines)),
                Err(error) => match self.report(&error) {
                    Reported::OneValue => {}
                    Reported::No if self.lines.is_empty() => return Err(UsageError::Clap(Box::new(error))),
                    Reported::Final | Reported::No => return Err(UsageError::Lines(self.lines)),
                },
            }
        }
    }

    /// Rejects values that are not UTF-8; clap rejects them without naming the flag.
    fn reject_non_utf8(&mut self) {
        let is_bytes = |name: &str| matches!(env::var(name), Err(VarError::NotUnicode(_)));
        let text = |arg: &Arg| arg.get_value_parser().type_id() != std::any::TypeId::of::<std::path::PathBuf>();
        let invalid = self.find(|arg| text(arg) && arg.get_env().and_then(|name| name.to_str()).is_some_and(is_bytes));
        for arg in invalid {
            self.reject(&arg, "not UTF-8", None);
        }
    }

    /// Reports an error of clap in our words, and drops the flag with the invalid value.
    fn report(&mut self, error: &clap::Error) -> Reported {
        let named = context(error, ContextKind::InvalidArg);
        match error.kind() {
            ErrorKind::ValueValidation | ErrorKind::InvalidValue | ErrorKind::TooManyValues => {
                let Some(arg) = named.first().and_then(|name| self.flag(name)) else {
                    return Reported::No;
                };
                let value = context(error, ContextKind::InvalidValue).concat();
                let shown = if value.is_empty() { "no value".to_owned() } else { format!("'{value}'") };
                if !self.reject(&arg, &shown, wording::rejection_reason(error)) {
                    return Reported::No;
                }
                Reported::OneValue
            }
            ErrorKind::MissingRequiredArgument => {
                let missing: Vec<_> = named.iter().filter_map(|name| self.flag(name)).collect();
                if missing.len() < named.len() {
                    return Reported::No; // a positional argument
                }
                for arg in &missing {
                    let line = format!("{}: not set: {}", self.title(arg), self.expectation(arg, None));
                    self.lines.push(line);
                }
                Reported::Final
            }
            ErrorKind::ArgumentConflict => {
                let others = context(error, ContextKind::PriorArg);
                let (Some(arg), Some(other)) =
                    (named.first().and_then(|name| self.flag(name)), others.first().and_then(|name| self.flag(name)))
                else {
                    return Reported::No;
                };
                let why = if arg.get_id() == other.get_id() {
                    "given twice: expected one value".to_owned()
                } else {
                    format!("given with {}: expected one of them", self.title(&other))
                };
                self.lines.push(format!("{}: {why}", self.title(&arg)));
                Reported::Final
            }
            ErrorKind::UnknownArgument => {
                self.report_unknown(&named.concat(), &context(error, ContextKind::SuggestedArg))
            }
            _ => Reported::No,
        }
    }

    /// Reports an argument that the command does not have.
    fn report_unknown(&mut self, argument: &str, suggested: &[String]) -> Reported {
        let help = || format!("see {} --help", self.command_path().join(" "));
        let line = match (argument.starts_with('-'), suggested.first()) {
            (true, Some(other)) => format!("{argument}: no such flag: expected {other}, or {}", help()),
            (true, None) => format!("{argument}: no such flag: {}", help()),
            // The flag before it is missing: it may be a password.
            (false, _) if argument.contains("://") => format!("(not shown): no flag before it: {}", help()),
            (false, _) => return Reported::No,
        };
        self.lines.push(line);
        Reported::Final
    }

    /// Reports the invalid value of a flag and drops the flag. Returns false if the same line was
    /// reported before.
    fn reject(&mut self, arg: &Arg, shown: &str, why: Option<String>) -> bool {
        let shown = if arg.is_hide_env_values_set() { "(not shown)" } else { shown };
        let line = format!("{}: {shown}: {}", self.title(arg), self.expectation(arg, why));
        self.drop_flag(arg);
        let previously_reported = self.lines.contains(&line);
        self.lines.push(line);
        !previously_reported
    }

    /// Removes a flag from the command line, and makes it optional in the command.
    fn drop_flag(&mut self, arg: &Arg) {
        let flag = flag(arg);
        let mut kept = Vec::new();
        let mut arguments = self.arguments.drain(..);
        while let Some(argument) = arguments.next() {
            let text = argument.to_string_lossy();
            if text == "--" {
                kept.push(argument);
                break;
            }
            if text == flag && arg.get_action().takes_values() {
                arguments.next();
            } else if text != flag && !text.starts_with(&format!("{flag}=")) {
                kept.push(argument);
            }
        }
        kept.extend(arguments);
        self.arguments = kept;
        self.command = without_flag(self.command.clone(), &flag);
    }

    /// Returns the command and the given subcommands, outermost first.
    fn commands(&self) -> Vec<&Command> {
        let mut commands = vec![&self.command];
        for name in &self.path {
            commands.extend(commands.last().and_then(|outer| outer.find_subcommand(name)));
        }
        commands
    }

    /// Returns the words that name the command, e.g. `tidings serve user`.
    fn command_path(&self) -> Vec<&str> {
        self.commands().into_iter().map(Command::get_name).collect()
    }

    /// Returns the flags of the command and its parents that match a condition.
    fn find(&self, condition: impl Fn(&Arg) -> bool) -> Vec<Arg> {
        let flags = self.commands().into_iter().rev().flat_map(Command::get_arguments);
        flags.filter(|arg| arg.get_long().is_some() && condition(arg)).cloned().collect()
    }

    /// Finds the flag of a clap error context, e.g. `--drain <DRAIN>`.
    fn flag(&self, named: &str) -> Option<Arg> {
        let wanted = named.split([' ', '=']).next().unwrap_or(named);
        self.find(|arg| flag(arg) == wanted).into_iter().next()
    }
}

/// The extent to which an error of clap was reported.
#[derive(Debug, PartialEq, Eq)]
enum Reported {
    /// One invalid value was reported; the rest of the command line may have more errors.
    OneValue,
    /// The error was reported, and parsing cannot continue.
    Final,
    /// The error was not reported; it is left to clap.
    No,
}

/// Returns a flag as it is written.
fn flag(arg: &Arg) -> String {
    format!("--{}", arg.get_long().unwrap_or_default())
}

/// Returns the command with the flag optional and without its environment variable.
fn without_flag(command: Command, flag: &str) -> Command {
    let without = |arg: Arg| {
        if self::flag(&arg) == flag { arg.env(None::<&'static str>).required(false) } else { arg }
    };
    command.mut_args(without).mut_subcommands(|subcommand| without_flag(subcommand, flag))
}

/// Returns the command without the environment variables that are empty.
fn without_empty_variables(command: Command) -> Command {
    let without = |arg: Arg| {
        if arg.get_env().is_some_and(|name| set_variable(name).is_none()) { arg.env(None::<&'static str>) } else { arg }
    };
    command.mut_args(without).mut_subcommands(without_empty_variables)
}

/// Returns the value of a variable, `None` if it is empty.
fn set_variable(name: impl AsRef<OsStr>) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Returns the values of one kind in the context of a clap error.
fn context(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(one)) => vec![one.clone()],
        Some(ContextValue::Strings(several)) => several.clone(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
