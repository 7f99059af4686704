//! Reads the command line and the environment, and says all that is wrong with them at once: a line for each flag, with its
//! variable, what it was given and what is expected.
//!
//! clap's own message names the first wrong value only, repeats it also if it is a password that came from the environment,
//! and never names the variable. A secret may also be in a file, which `<VARIABLE>_FILE` names.

mod files;
mod wording;

use std::collections::HashSet;
use std::env::{self, VarError};
use std::ffi::OsString;
use std::process;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command, Parser};

/// Reads the arguments of this process; ends it with 2 and a line for each thing that is wrong, with 0 after `--help`.
pub fn parse<P: Parser>() -> P {
    let command = P::command();
    let name = command.get_name().to_owned();
    match Usage::new(command, env::args_os().collect()).read() {
        Ok(mut matches) => P::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit()),
        Err(Refused::Clap(error)) => error.exit(),
        Err(Refused::Lines(lines)) => {
            #[expect(clippy::print_stderr, reason = "there is no log yet")]
            for line in lines {
                eprintln!("{name}: {line}");
            }
            process::exit(2)
        }
    }
}

/// Why nothing was read.
#[derive(Debug)]
enum Refused {
    /// `--help`, `--version`, and what names no flag: clap knows best.
    Clap(Box<clap::Error>),
    /// What is wrong.
    Lines(Vec<String>),
}

/// A command line on its way.
#[derive(Debug)]
struct Usage {
    command: Command,
    /// The names of the subcommands that it goes through.
    path: Vec<String>,
    arguments: Vec<OsString>,
    /// Where the arguments of the innermost subcommand begin.
    begin: usize,
    /// Flags whose value came from a file.
    from_files: HashSet<String>,
    lines: Vec<String>,
}

impl Usage {
    fn new(command: Command, arguments: Vec<OsString>) -> Self {
        let (mut path, mut begin, mut inner) = (Vec::new(), 1, &command);
        for (place, argument) in arguments.iter().enumerate().skip(1).take_while(|(_, argument)| *argument != "--") {
            if let Some(below) = inner.find_subcommand(argument) {
                path.push(below.get_name().to_owned());
                (begin, inner) = (place + 1, below);
            }
        }
        Self { command, path, arguments, begin, from_files: HashSet::new(), lines: Vec::new() }
    }

    /// Parses again and again, each time without the flag that was wrong the last time.
    fn read(mut self) -> Result<ArgMatches, Refused> {
        self.take_files();
        self.look_for_bytes();
        loop {
            match self.command.clone().try_get_matches_from(&self.arguments) {
                Ok(matches) if self.lines.is_empty() => return Ok(matches),
                Ok(_) => return Err(Refused::Lines(self.lines)),
                Err(error) => match self.complain(&error) {
                    Complaint::Value => {}
                    Complaint::None if self.lines.is_empty() => return Err(Refused::Clap(Box::new(error))),
                    Complaint::Last | Complaint::None => return Err(Refused::Lines(self.lines)),
                },
            }
        }
    }

    /// Values that are no text, which clap refuses without saying where they stand.
    fn look_for_bytes(&mut self) {
        let is_bytes = |name: &str| matches!(env::var(name), Err(VarError::NotUnicode(_)));
        let text = |arg: &Arg| arg.get_value_parser().type_id() != std::any::TypeId::of::<std::path::PathBuf>();
        let wrong = self.find(|arg| text(arg) && arg.get_env().and_then(|name| name.to_str()).is_some_and(is_bytes));
        for arg in wrong {
            self.refuse(&arg, "not UTF-8", None);
        }
    }

    /// Words an error of clap; a flag whose value was wrong is forgotten.
    fn complain(&mut self, error: &clap::Error) -> Complaint {
        let named = context(error, ContextKind::InvalidArg);
        match error.kind() {
            ErrorKind::ValueValidation | ErrorKind::InvalidValue | ErrorKind::TooManyValues => {
                let Some(arg) = named.first().and_then(|name| self.flag(name)) else {
                    return Complaint::None;
                };
                let value = context(error, ContextKind::InvalidValue).concat();
                let shown = if value.is_empty() { "no value".to_owned() } else { format!("'{value}'") };
                if !self.refuse(&arg, &shown, wording::said(error)) {
                    return Complaint::None;
                }
                Complaint::Value
            }
            ErrorKind::MissingRequiredArgument => {
                let missing: Vec<_> = named.iter().filter_map(|name| self.flag(name)).collect();
                if missing.len() < named.len() {
                    return Complaint::None; // not a flag, but an argument by its place
                }
                for arg in &missing {
                    let line = format!("{}: not set: {}", self.title(arg), self.expectation(arg, None));
                    self.lines.push(line);
                }
                Complaint::Last
            }
            ErrorKind::ArgumentConflict => {
                let others = context(error, ContextKind::PriorArg);
                let (Some(arg), Some(other)) =
                    (named.first().and_then(|name| self.flag(name)), others.first().and_then(|name| self.flag(name)))
                else {
                    return Complaint::None;
                };
                let why = if arg.get_id() == other.get_id() {
                    "given twice: expected one value".to_owned()
                } else {
                    format!("given with {}: expected one of them", self.title(&other))
                };
                self.lines.push(format!("{}: {why}", self.title(&arg)));
                Complaint::Last
            }
            ErrorKind::UnknownArgument => self.unknown(&named.concat(), &context(error, ContextKind::SuggestedArg)),
            _ => Complaint::None,
        }
    }

    /// An argument that the command does not have.
    fn unknown(&mut self, argument: &str, suggested: &[String]) -> Complaint {
        let help = || format!("see {} --help", self.words().join(" "));
        let line = match (argument.starts_with('-'), suggested.first()) {
            (true, Some(other)) => format!("{argument}: no such flag: expected {other}, or {}", help()),
            (true, None) => format!("{argument}: no such flag: {}", help()),
            // Somebody forgot the flag before it: it may hold a password.
            (false, _) if argument.contains("://") => format!("(not shown): no flag before it: {}", help()),
            (false, _) => return Complaint::None,
        };
        self.lines.push(line);
        Complaint::Last
    }

    /// Says what is wrong with the value of a flag, and goes on without it. False if that was done before.
    fn refuse(&mut self, arg: &Arg, shown: &str, why: Option<String>) -> bool {
        let shown = if arg.is_hide_env_values_set() { "(not shown)" } else { shown };
        let line = format!("{}: {shown}: {}", self.title(arg), self.expectation(arg, why));
        self.forget(arg);
        let said = self.lines.contains(&line);
        self.lines.push(line);
        !said
    }

    /// Takes a flag off the command line, and the command no longer asks for it.
    fn forget(&mut self, arg: &Arg) {
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
        self.command = forgotten(self.command.clone(), &flag);
    }

    /// The command and the subcommands that it goes through, outermost first.
    fn commands(&self) -> Vec<&Command> {
        let mut commands = vec![&self.command];
        for name in &self.path {
            commands.extend(commands.last().and_then(|outer| outer.find_subcommand(name)));
        }
        commands
    }

    /// How the command is called, e.g. `tidings serve user`.
    fn words(&self) -> Vec<&str> {
        self.commands().into_iter().map(Command::get_name).collect()
    }

    /// Flags of the command, or of one that it is in, of which something is true.
    fn find(&self, is_so: impl Fn(&Arg) -> bool) -> Vec<Arg> {
        let flags = self.commands().into_iter().rev().flat_map(Command::get_arguments);
        flags.filter(|arg| arg.get_long().is_some() && is_so(arg)).cloned().collect()
    }

    /// The flag that clap calls so, e.g. `--drain <DRAIN>`.
    fn flag(&self, named: &str) -> Option<Arg> {
        let wanted = named.split([' ', '=']).next().unwrap_or(named);
        self.find(|arg| flag(arg) == wanted).into_iter().next()
    }
}

/// How far an error of clap was understood.
#[derive(Debug, PartialEq, Eq)]
enum Complaint {
    /// It was about one value, without which there may be more to find.
    Value,
    /// It is told, and nothing comes after it.
    Last,
    /// It is left to clap.
    None,
}

/// A flag as it is written.
fn flag(arg: &Arg) -> String {
    format!("--{}", arg.get_long().unwrap_or_default())
}

/// A command that does without a flag, whatever the environment says.
fn forgotten(command: Command, flag: &str) -> Command {
    let without = |arg: Arg| {
        if self::flag(&arg) == flag { arg.env(None::<&'static str>).required(false) } else { arg }
    };
    command.mut_args(without).mut_subcommands(|below| forgotten(below, flag))
}

/// What an error of clap knows about something.
fn context(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(one)) => vec![one.clone()],
        Some(ContextValue::Strings(several)) => several.clone(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
