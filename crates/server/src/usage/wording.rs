//! How a flag is called, and what is expected of it.

use std::error::Error;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command};

use super::{Usage, files, flag};

/// Values that most flags refuse, and say why.
const WRONG: [&str; 2] = ["", "-1"];

impl Usage {
    /// `--drain (TIDINGS_DRAIN)`.
    pub(super) fn title(&self, arg: &Arg) -> String {
        let variable = if self.from_files.contains(&flag(arg)) {
            files::variable(arg)
        } else {
            arg.get_env().map(|name| name.to_string_lossy().into_owned())
        };
        flag(arg) + &variable.map(|name| format!(" ({name})")).unwrap_or_default()
    }

    /// `expected a duration like 800ms or 5s`: as the flag's own parser says it, to this value or to another.
    pub(super) fn expectation(&self, arg: &Arg, said: Option<String>) -> String {
        // A flag stands in one of the commands, which by itself is parsed as well.
        let flag = flag(arg);
        let owner = self.commands().into_iter().rev().find(|it| it.get_arguments().any(|other| other == arg));
        let answers = owner.into_iter().flat_map(|owner| WRONG.iter().filter_map(|value| answer(owner, &flag, value)));
        let words: Vec<_> = said.into_iter().chain(answers).collect();
        let own = words.iter().find_map(|words| own(words));
        own.or_else(|| words.iter().find_map(|words| range(words))).unwrap_or_else(|| {
            let names = arg.get_value_names().unwrap_or_default();
            let takes = arg.get_action().takes_values();
            if takes { format!("expected {}", names.join(" ")) } else { "expected no value".to_owned() }
        })
    }
}

/// What a parser says that it expects; some say first what they got.
fn own(words: &str) -> Option<String> {
    let at = words.find("expected ")?;
    (at == 0 || words[..at].ends_with(": ")).then(|| words[at..].to_owned())
}

/// What is answered to this value of a flag.
fn answer(command: &Command, flag: &str, value: &str) -> Option<String> {
    let command = command.clone().no_binary_name(true);
    said(&command.try_get_matches_from([format!("{flag}={value}")]).err()?)
}

/// Why clap, or the parser of a flag, refused a value.
pub(super) fn said(error: &clap::Error) -> Option<String> {
    match (error.source(), error.get(ContextKind::ValidValue)) {
        (Some(said), _) => Some(said.to_string()),
        (None, Some(ContextValue::Strings(values))) if !values.is_empty() => {
            Some(format!("expected {}", values.join(" or ")))
        }
        _ => None,
    }
}

/// A number's range, out of clap's `-1 is not in 1..=1000`.
fn range(words: &str) -> Option<String> {
    let (_, range) = words.split_once(" is not in ")?;
    let (first, last) = range.split_once("..")?;
    Some(format!("expected {first} to {}", last.trim_start_matches('=')))
}
