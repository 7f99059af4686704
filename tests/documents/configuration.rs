//! `docs/configuration.md`: every setting of the services, from the command itself.

use std::iter;

use clap::Arg;

use crate::{assert_up_to_date, table};

const INTRODUCTION: &str = "\
# Configuration

Every setting of a service is a flag of `tidings serve SERVICE` (and of the program `tidings-SERVICE serve`, which is the same) and an
environment variable; a flag wins over its variable. There is no configuration file. Written from the flags by `make docs`;
`tidings serve SERVICE --help` says the same.

- **Durations** are text: `800ms`, `5s`, `24h`. Where nothing is said of zero, they are more than nothing.
- **Switches**, without a value here, are variables of the value `true` or `false`.
- **Secrets**, marked so, are never shown: not in a message, not in a log, not in `--help`. Instead of the variable there may be one of
  the same name with `_FILE` behind it: the path of a file that holds the value.
- **What is wrong ends the process** with 2 before it has opened a port. All wrong values are told at once, a line each:
  `--drain (TIDINGS_DRAIN): '5x': expected a duration like 800ms or 5s`. Files, and what only several settings together can be
  wrong about, are looked at when these are right.
- **The log** is set by a variable alone, for all verbs: `TIDINGS_LOG`, by default `info`, takes filters like
  `debug,tidings_server=trace`. Of one kind, at most a hundred lines of `info` and above are written in a second; the others
  are counted in `tidings_log_lines_left_out_total`.
";

/// A setting, and which services have it.
struct Setting {
    arg: Arg,
    services: Vec<(String, Vec<String>)>,
}

/// The settings of all services, in groups as `--help` shows them, in the order in which they come first.
fn settings() -> (Vec<String>, Vec<(String, Vec<Setting>)>) {
    let grammar = tidings::grammar();
    let services: Vec<_> = grammar.find_subcommand("serve").unwrap().get_subcommands().cloned().collect();
    let mut groups: Vec<(String, Vec<Setting>)> = Vec::new();
    for service in &services {
        for arg in service.get_arguments().filter(|arg| arg.get_env().is_some()) {
            let heading = arg.get_help_heading().unwrap_or("Service").to_owned();
            let at = groups.iter().position(|(name, _)| *name == heading).unwrap_or_else(|| {
                groups.push((heading, Vec::new()));
                groups.len() - 1
            });
            let group = &mut groups[at].1;
            let at = group.iter().position(|setting| setting.arg.get_long() == arg.get_long()).unwrap_or_else(|| {
                group.push(Setting { arg: arg.clone(), services: Vec::new() });
                group.len() - 1
            });
            let defaults = arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
            group[at].services.push((service.get_name().to_owned(), defaults));
        }
    }
    (services.iter().map(|service| service.get_name().to_owned()).collect(), groups)
}

/// `--drain DURATION`, `TIDINGS_DRAIN`, `20s`, what it means, who has it.
fn row(setting: &Setting, services: &[String]) -> [String; 5] {
    let arg = &setting.arg;
    let takes = arg.get_action().takes_values();
    let value =
        arg.get_value_names().filter(|_| takes).map(|names| format!(" {}", names.join(" "))).unwrap_or_default();
    let flag = format!("`--{}{value}`", arg.get_long().unwrap());
    let variable = arg.get_env().unwrap().to_str().unwrap();
    let secret = if arg.is_hide_env_values_set() { ", a secret" } else { "" };
    let names: Vec<_> = setting.services.iter().map(|(name, _)| name.clone()).collect();
    let who = if names == services { "all".to_owned() } else { names.join(", ") };
    [flag, format!("`{variable}`{secret}"), default(setting), meaning(arg), who]
}

/// What holds if nothing is said: the same for all services, or of each.
fn default(setting: &Setting) -> String {
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
fn every_setting_of_a_service_is_a_flag_and_a_variable_with_a_meaning() {
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
