//! Runs the marked blocks of the README, the guides and the examples of the client in order and
//! compares their output: `console run` with the command, `console grpcurl` with grpcurl.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::client_examples;
use crate::support::{TIDINGS, TidingsUp, output_of, root, stderr};

/// A command of a document with the output shown below it.
struct Example {
    command: String,
    output: String,
}

/// Returns the commands (`$ ...`, continued by a final `\`) of all blocks marked so, each with its
/// output.
fn examples(text: &str, mark: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let continued = examples.last().is_some_and(|last| last.output.is_empty() && last.command.ends_with('\\'));
        match line {
            _ if line.strip_prefix("```").is_some_and(|rest| rest == mark) => inside = true,
            "```" => inside = false,
            _ if !inside => {}
            _ if continued => {
                if let Some(last) = examples.last_mut() {
                    last.command.push('\n');
                    last.command.push_str(line);
                }
            }
            _ => match (line.strip_prefix("$ "), examples.last_mut()) {
                (Some(command), _) => examples.push(Example { command: command.to_owned(), output: String::new() }),
                (None, Some(last)) => {
                    last.output.push_str(line);
                    last.output.push('\n');
                }
                (None, None) => panic!("output without a command: {line}"),
            },
        }
    }
    examples
}

/// Returns true if an output is as expected, where `...` matches any text.
fn matches(expected: &str, output: &str) -> bool {
    let mut parts = expected.trim_end().split("...");
    let Some(mut rest) = parts.next().and_then(|first| output.trim_end().strip_prefix(first)) else {
        return false;
    };
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || expected.trim_end().ends_with("...")
}

/// Returns the Markdown of a document (path from the root of the repository): of a Rust file, the
/// documentation at its head.
fn markdown(document: &str) -> String {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let head = text.lines().map_while(|line| line.strip_prefix("//!"));
    let head: Vec<_> = head.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    if head.is_empty() { text } else { head.join("\n") }
}

/// Runs the commands of documents on a new installation.
fn run(documents: &[&str], mark: &str, at_least: usize) {
    let examples: Vec<_> = documents.iter().flat_map(|document| examples(&markdown(document), mark)).collect();
    assert!(examples.len() >= at_least, "{documents:?} have {} examples", examples.len());
    let dir = tempfile::tempdir().unwrap();
    let tidings = TidingsUp::start(dir.path());
    // The first `tidings` on the PATH is the program under test.
    let bin = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(TIDINGS, bin.path().join("tidings")).unwrap();

    for Example { command, output: expected } in examples {
        // Documents show the default ports.
        let command =
            (7401..).zip(["user", "history", "lock", "broadcast"]).fold(command, |command, (port, service)| {
                command.replace(&format!("127.0.0.1:{port}"), &tidings.address(service))
            });
        let command = client_examples::NAMES.into_iter().fold(command, |command, name| {
            let cargo = format!("cargo run --quiet -p tidings-client --example {name} --");
            if !command.contains(&cargo) {
                return command;
            }
            command.replace(&cargo, client_examples::executable(name).to_str().unwrap())
        });
        let output = output_of(
            Command::new("sh")
                .args(["-c", &command])
                .current_dir(root())
                .env("PATH", path_with(bin.path()))
                .env("RUST_LIB_BACKTRACE", "0") // the examples print the backtraces of their errors
                .env("POSTGRES", &tidings.postgres)
                .env("REDIS", &tidings.redis)
                .envs(tidings.addresses()),
        );
        let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
        assert!(matches(&expected, &printed), "{documents:?}: $ {command}\nexpected:\n{expected}\nprinted:\n{printed}");
    }
}

#[test]
fn the_commands_of_the_readme_print_what_it_shows() {
    run(&["README.md"], "console run", 20);
}

/// grpcurl 1.8.6 uses reflection v1alpha; `buf curl` in `interop.rs` uses v1.
#[test]
fn the_grpcurl_commands_of_the_readme_print_what_it_shows() {
    if Command::new("grpcurl").arg("--version").output().is_err() {
        eprintln!("the_grpcurl_commands_of_the_readme_print_what_it_shows: skipped, grpcurl is not installed");
        return;
    }
    run(&["README.md"], "console grpcurl", 3);
}

#[test]
fn the_commands_of_the_user_guide_print_what_it_shows() {
    run(&["docs/guide/user.md"], "console run", 5);
}

#[test]
fn the_commands_of_the_client_examples_print_what_they_show() {
    run(&["crates/client/examples/get_user.rs", "crates/client/examples/lock.rs"], "console run", 8);
}

fn path_with(first: &Path) -> String {
    format!("{}:{}", first.display(), std::env::var("PATH").unwrap_or_default())
}

#[test]
fn three_dots_match_any_text() {
    assert!(matches("{\n  \"id\": ...\n}", "{\n  \"id\": \"x\"\n}\n"));
    assert!(matches("a...", "abc"));
    assert!(!matches("a...d", "abc"));
    assert!(!matches("ab", "abc"));
}
