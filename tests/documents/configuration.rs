//! `docs/configuration.md`: every setting of the services, from the command-line grammar.

use std::iter;

use clap::Arg;

use crate::{assert_up_to_date, table};

const INTRODUCTION: &str = "\
# Configuration

Every setting of a service is a flag of `tidings serve SERVICE` (and of the equivalent program
`tidings-SERVICE serve`) and an environment variable. A flag overrides its variable. There is no
configuration file. `tidings serve SERVICE --help` prints the same. Generated from the flags by
`make docs`.

- **Durations** are text: `800ms`, `5s`, `24h`. They are greater than zero unless the table says
  otherwise.
- **Switches** have no value in the table; their variables are `true` or `false`.
- **An empty variable** is unset: the default applies.
- **Files** are text in UTF-8, with or without byte order mark, with line ends of any system.
- **Secrets** are marked. They never appear in messages, logs or `--help`. A variable with the
  suffix `_FILE` gives the path of a file that holds the value instead.
- **Invalid settings** end the process with exit code 2 before it opens a port. All invalid values
  are reported at once, one per line: `--drain (TIDINGS_DRAIN): '5x': expected a duration like 800ms
  or 5s`. Files and combinations of settings are checked only if all single values are valid.
- **The log** has a variable only, for all verbs: `TIDINGS_LOG`, default `info`, takes filters like
  `debug,tidings_server=trace`. At most one hundred lines per second of one kind are written at
  `info` and above. No call waits for standard error: up to 1 MiB of lines are buffered while it is
  not read, and further lines are dropped. `tidings_log_lines_dropped_total` counts dropped lines by
  cause, and a line reports them when standard error is read again.
";

/// A setting and the services that have it, each with its defaults.
struct DocumentedSetting {
    arg: Arg,
    services: Vec<(String, Vec<String>)>,
}

/// Returns the names of all services, and their settings grouped as in `--help`.
fn settings() -> (Vec<String>, Vec<(String, Vec<DocumentedSetting>)>) {
    let grammar = tidings::grammar();
    let services: Vec<_> = grammar.find_subcommand("serve").unwrap().get_subcommands().cloned().collect();
    let mut groups: Vec<(String, Vec<DocumentedSetting>)> = Vec::new();
    for service in &services {
        for arg in service.get_arguments().filter(|arg| arg.get_env().is_some() && !arg.is_hide_set()) {
            let heading = arg.get_help_heading().unwrap_or("Service").to_owned();
            let at = groups.iter().position(|(name, _)| *name == heading).unwrap_or_else(|| {
                groups.push((heading, Vec::new()));
                groups.len() - 1
            });
            let group = &mut groups[at].1;
            let at = group.iter().position(|setting| setting.arg.get_long() == arg.get_long()).unwrap_or_else(|| {
                group.push(DocumentedSetting { arg: arg.clone(), services: Vec::new() });
                group.len() - 1
            });
            let defaults = arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
            group[at].services.push((service.get_name().to_owned(), defaults));
        }
    }
    (services.iter().map(|service| service.get_name().to_owned()).collect(), groups)
}

/// Returns a table row, e.g. `--drain DURATION`, `TIDINGS_DRAIN`, `20s`, meaning, services.
fn row(setting: &DocumentedSetting, services: &[String]) -> [String; 5] {
    let arg = &setting.arg;
    let takes = arg.get_action().takes_values();
    let value =
        arg.get_value_names().filter(|_| takes).map(|names| format!(" {}", names.join(" "))).unwrap_or_default();
    let flag = format!("`--{}{value}`", arg.get_long().unwrap());
    let variable = arg.get_env().unwrap().to_str().unwrap();
    let secret = if arg.is_hide_env_values_set() { ", a secret" } else { "" };
    let names: Vec<_> = setting.services.iter().map(|(name, _)| name.clone()).collect();
    let having = if names == services { "all".to_owned() } else { names.join(", ") };
    [flag, format!("`{variable}`{secret}"), default(setting), meaning(arg), having]
}

/// Returns the default value: one for all services, or one per service.
fn default(setting: &DocumentedSetting) -> String {
    let code = |values: &[String]| format!("`{}`", values.join(" "));
    let (_, first) = &setting.services[0];
    if !setting.arg.get_action().takes_values() {
        return "off".to_owned();
    }
    if first.is_empty() {
        return if setting.arg.is_required_set() { "required" } else { "" }.to_owned();
    }
    if setting.services.iter().all(|(_, values)| values == first) {
        return code(first);
    }
    let each = setting.services.iter().map(|(name, values)| format!("{name} {}", code(values)));
    each.collect::<Vec<_>>().join(", ")
}

fn meaning(arg: &Arg) -> String {
    let text = arg.get_long_help().or_else(|| arg.get_help()).unwrap().to_string();
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.ends_with('.') { line } else { line + "." }
}

#[test]
fn docs_configuration_md_is_up_to_date() {
    let (services, groups) = settings();
    let tables = groups.iter().map(|(heading, settings)| {
        let head = ["flag", "variable", "default", "meaning", "service"];
        format!("\n## {heading}\n\n{}", table(head, settings.iter().map(|setting| row(setting, &services))))
    });
    let text = iter::once(INTRODUCTION.to_owned()).chain(tables).collect::<String>();

    assert_up_to_date("docs/configuration.md", &text);
}

#[test]
fn every_setting_has_a_flag_a_variable_and_a_meaning() {
    let grammar = tidings::grammar();
    for service in grammar.find_subcommand("serve").unwrap().get_subcommands() {
        for arg in service.get_arguments().filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version")) {
            let flag = arg.get_long().unwrap();
            let variable = arg.get_env().and_then(|name| name.to_str()).unwrap_or_default();
            assert!(variable == format!("TIDINGS_{}", flag.to_uppercase().replace('-', "_")), "{flag}: {variable}");
            assert!(arg.get_help().is_some(), "{flag}");
        }
    }
}
