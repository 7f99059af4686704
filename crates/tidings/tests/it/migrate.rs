//! `tidings migrate` without databases.

use crate::{command, ended, tidings};

/// A port that nothing listens on.
const UNREACHABLE: &str = "postgres://ada:secret@127.0.0.1:1/nothing";

#[test]
fn broadcast_has_nothing_to_migrate() {
    let run = tidings(&["migrate", "broadcast"]);

    assert_eq!(run.code, 2);
    assert!(run.err.contains("unrecognized subcommand 'broadcast'"), "{}", run.err);
    assert!(tidings(&["migrate", "--help"]).out.contains("Broadcast has no database."));
}

#[test]
fn all_requires_a_url_for_each_service() {
    let run = tidings(&["migrate", "all", "--user-postgres-url", UNREACHABLE]);

    let expected = "expected postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE";
    let missing = ["history", "lock"].map(|service| {
        let variable = service.to_uppercase();
        format!("tidings: --{service}-postgres-url (TIDINGS_{variable}_POSTGRES_URL): not set: {expected}\n")
    });
    assert_eq!((run.code, run.err), (2, missing.concat()));
}

/// The log names the address, without the password.
#[test]
fn an_unreachable_database_is_a_failure_for_each_service() {
    let mut all = command(&["migrate", "all", "--user-postgres-url", UNREACHABLE]);
    all.envs(["HISTORY", "LOCK"].map(|service| (format!("TIDINGS_{service}_POSTGRES_URL"), UNREACHABLE)));

    let run = ended(&all.output().unwrap());

    let lines = ["user", "history", "lock"].map(|service| format!("{service:<9} not migrated, see the log\n"));
    assert_eq!((run.code, run.out), (3, lines.concat()));
    assert!(run.err.contains("postgres://127.0.0.1:1/nothing") && !run.err.contains("secret"), "{}", run.err);
}

#[test]
fn an_invalid_setting_is_reported_once_and_migrates_nothing() {
    let mut all = command(&["migrate", "all", "--user-postgres-url", UNREACHABLE]);
    all.envs(["HISTORY", "LOCK"].map(|service| (format!("TIDINGS_{service}_POSTGRES_URL"), UNREACHABLE)));

    let run = ended(&all.env("TIDINGS_LOG", "==").output().unwrap());

    assert_eq!((run.code, run.out.as_str()), (2, ""));
    assert_eq!(run.err.matches("TIDINGS_LOG").count(), 1, "{}", run.err);
}
