//! The README and the guides do what they say: their blocks marked `console run` are executed in order and their output
//! compared.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{TIDINGS, Up, finish, root, stderr};

/// A command of the README with the output it promises.
struct Example {
    command: String,
    output: String,
}

/// The commands (`$ ...`, continued by a final `\`) of all blocks that are marked, each with the lines that follow it.
fn examples(text: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let continued = examples.last().is_some_and(|last| last.output.is_empty() && last.command.ends_with('\\'));
        match line {
            "```console run" => inside = true,
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

/// Whether an output is as promised, where `...` stands for anything.
fn matches(promised: &str, output: &str) -> bool {
    let mut parts = promised.trim_end().split("...");
    let Some(mut rest) = parts.next().and_then(|first| output.trim_end().strip_prefix(first)) else {
        return false;
    };
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || promised.trim_end().ends_with("...")
}

/// Runs the commands of a document, named from the root of the repository, beside an installation of its own.
fn run(document: &str) {
    let examples = examples(&fs::read_to_string(root().join(document)).unwrap());
    assert!(examples.len() >= 5, "{document} has examples");
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path());
    // `tidings` is the program under test, whatever else of that name is installed.
    let bin = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(TIDINGS, bin.path().join("tidings")).unwrap();

    for Example { command, output: promised } in examples {
        let output = finish(
            Command::new("sh")
                .args(["-c", &command])
                .current_dir(root())
                .env("PATH", path_with(bin.path()))
                .env("POSTGRES", &up.postgres)
                .env("REDIS", &up.redis)
                .envs(up.addresses()),
        );
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
        assert!(matches(&promised, &said), "{document}: $ {command}\npromised:\n{promised}\nsaid:\n{said}");
    }
}

#[test]
fn the_commands_of_the_readme_do_what_it_says() {
    run("README.md");
}

#[test]
fn the_commands_of_the_guide_to_users_do_what_it_says() {
    run("docs/guide/user.md");
}

fn path_with(first: &Path) -> String {
    format!("{}:{}", first.display(), std::env::var("PATH").unwrap_or_default())
}

#[test]
fn three_dots_stand_for_anything() {
    assert!(matches("{\n  \"id\": ...\n}", "{\n  \"id\": \"x\"\n}\n"));
    assert!(matches("a...", "abc"));
    assert!(!matches("a...d", "abc"));
    assert!(!matches("ab", "abc"));
}
