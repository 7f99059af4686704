//! The binary as its users run it: against nothing, and against services in memory that can misbehave.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod call;
mod fake;
mod replay;

use std::process::{Command, Output};

/// A run of the binary that has ended.
#[derive(Debug)]
struct Run {
    code: i32,
    out: String,
    err: String,
}

/// The binary, with an environment that says nothing about services.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command.args(arguments).env_remove("TIDINGS_USER_ADDR").env_remove("TIDINGS_HISTORY_ADDR");
    command
}

/// Runs the binary to its end.
fn tidings(arguments: &[&str]) -> Run {
    ended(&command(arguments).output().unwrap())
}

fn ended(output: &Output) -> Run {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Run { code: output.status.code().unwrap(), out: text(&output.stdout), err: text(&output.stderr) }
}

#[test]
fn help_names_every_verb() {
    let run = tidings(&["--help"]);

    assert_eq!(run.code, 0);
    for verb in ["call", "replay"] {
        assert!(run.out.contains(&format!("\n  {verb} ")), "{}", run.out);
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in [&[][..], &["frobnicate"], &["call"], &["replay"], &["call", "--list", "--describe", "GetUser"]] {
        assert_eq!(tidings(arguments).code, 2, "{arguments:?}");
    }
}
