//! The command `tidings-devstack exec`.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidings-devstack")).args(arguments).output().unwrap()
}

#[test]
fn the_command_gets_its_urls_and_sets_the_exit_status() {
    let migrations = concat!("note=", env!("CARGO_MANIFEST_DIR"), "/tests/migrations");
    let show = "echo $TIDINGS_NOTE_DATABASE_URL $TIDINGS_REDIS_URL $TIDINGS_DEVSTACK_POSTGRES_URL; exit 7";

    let output = run(&["exec", "--migrate", migrations, "--", "sh", "-c", show]);

    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let urls: Vec<_> = text.split_whitespace().collect();
    assert!(urls[0].starts_with("postgres://tidings@127.0.0.1:") && urls[0].ends_with("/tidings_note"), "{text}");
    assert!(urls[1].starts_with("redis://127.0.0.1:"), "{text}");
    assert!(urls[2].ends_with("/postgres"), "{text}");
}

#[test]
fn an_unknown_command_is_one_line_and_status_1() {
    let output = run(&["exec", "--", "/no/such/command"]);

    assert_eq!(output.status.code(), Some(1));
    let line = "tidings-devstack: cannot run /no/such/command: No such file or directory (os error 2)\n";
    assert_eq!(String::from_utf8(output.stderr).unwrap(), line);
}

#[test]
fn a_malformed_migration_is_a_usage_error() {
    let output = run(&["exec", "--migrate", "Note=x", "--", "true"]);

    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_missing_migrations_directory_is_named() {
    let output = run(&["exec", "--migrate", "note=/nowhere", "--", "true"]);

    assert_eq!(output.status.code(), Some(1));
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(line.starts_with("tidings-devstack: cannot migrate tidings_note from /nowhere: "), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
}
