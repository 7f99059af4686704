//! `tidings user`: each verb as a table and as JSON, and imports with invalid lines, crashes,
//! interruptions and outages, after which each user exists exactly once.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{TidingsUp, eventually, output_of, stderr};

/// Exit code of an understood command that found or did nothing.
const FAILED: i32 = 1;
/// Exit code of invalid usage.
const USAGE: i32 = 2;
/// Exit code of a failed call.
const SERVICE: i32 = 3;

/// Runs a command that must succeed; returns its standard output.
fn stdout_of(command: &mut Command) -> String {
    let output = output_of(command);
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must succeed; returns its standard output as JSON.
fn json_of(command: &mut Command) -> Value {
    serde_json::from_str(&stdout_of(command)).unwrap()
}

/// Runs a command that must exit with this code; returns its standard error.
fn refused(command: &mut Command, code: i32) -> String {
    let output = output_of(command);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{message}");
    message
}

/// Returns the value of a named row of a table.
fn row<'a>(table: &'a str, name: &str) -> Option<&'a str> {
    table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::trim))
}

/// Returns the JSON summary of an import with any exit code.
fn summary(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(output)))
}

/// Returns the number of users in the database.
fn users(tidings: &TidingsUp) -> i64 {
    tidings.count("tidings_user", "SELECT count(*) FROM user_account")
}

fn write(dir: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path
}

/// Returns an import command that prints its summary as JSON.
fn import(tidings: &TidingsUp, file: &Path, flags: &[&str]) -> Command {
    let mut command = tidings.command(&["user", "import"]);
    command.arg(file).args(["--quiet", "--output", "json"]).args(flags);
    command
}

#[test]
fn every_verb_prints_a_table_or_json() {
    let dir = tempfile::tempdir().unwrap();
    let tidings = TidingsUp::start(dir.path());
    let user = |arguments: &[&str]| tidings.command(&[&["user"], arguments].concat());

    let create = ["create", "ada", "--display-name", "Ada Lovelace", "--age", "36", "--attribute", "team=ops"];
    let created = stdout_of(&mut user(&create));
    assert_eq!(row(&created, "display_name"), Some("Ada Lovelace"));
    assert_eq!((row(&created, "attributes.team"), row(&created, "version")), (Some("ops"), Some("1")));
    let again = json_of(&mut user(&[&create[..], &["--output", "json"]].concat()));
    assert_eq!((&again["deduplicated"], &again["user"]["version"]), (&json!(true), &json!("1")));
    assert!(refused(&mut user(&["create", "ada", "--bio", "another"]), FAILED).contains("USER_ID_TAKEN"));
    let made = json_of(&mut user(&["create", "--display-name", "Bot", "--output", "json"]));
    let bot = made["user"]["id"].as_str().unwrap();
    assert_eq!(bot.len(), 36, "the service generates an id: {bot}");

    let strong = stdout_of(&mut user(&["get", "ada", "--strong"]));
    assert_eq!(row(&strong, "read from"), Some("postgres"));
    let read = json_of(&mut user(&["get", "ada", "--min-version", "1", "--output", "json"]));
    assert_eq!((&read["user"]["age"], read["readInfo"]["source"].is_string()), (&json!(36), true));
    assert!(refused(&mut user(&["get", "ada", "--min-version", "9"]), FAILED).contains("VERSION_AHEAD"));
    assert!(refused(&mut user(&["get", "nobody"]), FAILED).contains("USER_NOT_FOUND"));
    let several = output_of(&mut user(&["get", "nobody", bot, "ada"]));
    let table = String::from_utf8(several.stdout.clone()).unwrap();
    assert_eq!(several.status.code(), Some(FAILED), "{table}");
    assert!(stderr(&several).contains("no such user: nobody"), "{}", stderr(&several));
    assert!(table.lines().nth(1).is_some_and(|line| line.starts_with(bot)), "in the order of the arguments: {table}");
    let lines = stdout_of(&mut user(&["get", "ada", bot, "--output", "jsonl"]));
    assert_eq!(lines.lines().count(), 2);
    let both = json_of(&mut user(&["get", "ada", bot, "--output", "json"]));
    assert_eq!(both["results"][0]["user"]["id"], "ada");

    let change = ["--set", "attributes.desk=7", "--set", "bio=a=b", "--clear", "age"];
    let updated = stdout_of(&mut user(&[&["update", "ada"], &change[..]].concat()));
    assert_eq!((row(&updated, "attributes.team"), row(&updated, "attributes.desk")), (Some("ops"), Some("7")));
    assert_eq!((row(&updated, "age"), row(&updated, "version")), (None, Some("2")));
    let stale = ["update", "ada", "--set", "bio=x", "--expected-version", "1"];
    assert!(refused(&mut user(&stale), FAILED).contains("VERSION_MISMATCH"));
    let stale = ["update", "ada", "--set", "attributes.team=x", "--expected-version", "1"];
    assert!(refused(&mut user(&stale), FAILED).contains("ada has version 2, not 1; nothing was changed"));
    assert!(refused(&mut user(&["update", "ada"]), USAGE).contains("--set"));
    let cleared = ["update", "ada", "--clear", "attributes", "--expected-version", "2", "--output", "json"];
    let cleared = json_of(&mut user(&cleared));
    assert_eq!((&cleared["user"]["version"], cleared["user"].get("attributes")), (&json!("3"), None));

    assert!(refused(&mut user(&["delete", "ada", "--expected-version", "1"]), FAILED).contains("VERSION_MISMATCH"));
    assert!(stdout_of(&mut user(&["delete", "ada"])).starts_with("ada is deleted (version 4, "));
    assert_eq!(json_of(&mut user(&["delete", bot, "--output", "json"]))["version"], "2");
    assert!(refused(&mut user(&["delete", "ada"]), FAILED).contains("USER_NOT_FOUND"));
    assert!(refused(&mut user(&["create", "no spaces"]), USAGE).contains("user.id: expected 1 to 64"));
}

#[test]
fn invalid_csv_lines_are_reported_and_kept_and_others_imported() {
    let dir = tempfile::tempdir().unwrap();
    let tidings = TidingsUp::start(&dir.path().join("up"));
    let rejects = dir.path().join("refused.csv");
    let keep = ["--rejects", rejects.to_str().unwrap()];
    let csv = "id,age,attributes.team,bio\nada,36,ops,\nbob,old,ops,\nno spaces,200,,\neve,7\ndan,,,\"two\nlines\"\n";
    let staff = write(dir.path(), "staff.csv", csv);

    let output = output_of(&mut import(&tidings, &staff, &keep));

    let (message, counts) = (stderr(&output), summary(&output));
    assert_eq!(output.status.code(), Some(FAILED), "{message}");
    for expected in [
        "line 3: age: expected a whole number of years",
        "line 4: id: expected 1 to 64 of [A-Za-z0-9._~-]",
        "line 4: age: expected 0 to 150, got 200",
        "line 5: expected 4 cells, got 2",
        "tidings: 3 of 5 lines were refused; see ",
    ] {
        assert!(message.contains(expected), "{expected}\n{message}");
    }
    assert_eq!((&counts["created"], &counts["refused"], &counts["ended"]), (&json!(2), &json!(3), &json!("completed")));
    assert_eq!((&counts["refusals"][0]["line"], &counts["refusals"][0]["field"]), (&json!(3), &json!("age")));
    assert_eq!(stdout_of(&mut tidings.command(&["user", "get", "ada", "dan", "--output", "jsonl"])).lines().count(), 2);

    let rejected = fs::read_to_string(&rejects).unwrap();
    assert_eq!(rejected, "id,age,attributes.team,bio\nbob,old,ops,\nno spaces,200,,\neve,7\n");
    let corrected = rejected.replace("old", "40").replace("no spaces,200", "cat,20").replace("eve,7", "eve,7,,");
    let corrected = write(dir.path(), "corrected.csv", corrected);
    assert_eq!(json_of(&mut import(&tidings, &corrected, &[]))["created"], 3);
    let table = stdout_of(tidings.command(&["user", "import", "--quiet"]).arg(&corrected));
    assert_eq!((row(&table, "created"), row(&table, "already existed")), (Some("0"), Some("3")));

    let first = refused(&mut import(&tidings, &staff, &["--stop-on-error", "--in-flight", "1"]), FAILED);
    assert!(first.contains("line 3: ") && !first.contains("line 4: "), "{first}");
}

#[test]
fn json_lines_from_stdin_are_imported_and_invalid_ones_kept() {
    let dir = tempfile::tempdir().unwrap();
    let tidings = TidingsUp::start(&dir.path().join("up"));
    let rejects = dir.path().join("refused.jsonl");
    let wrong = ["{\"id\": \"eve\", \"nick\": \"x\"}", "not json", "{\"id\": \"dan\", \"handle\": \"ADA\"}"];
    let large = format!("{{\"id\": \"large\", \"bio\": \"{}\"}}", "x".repeat(300_000));
    let right = "{\"id\": \"ada\", \"handle\": \"ada\", \"displayName\": \"Ada\", \"version\": \"7\"}";
    let text = format!("{right}\n{}\n\n{}\r\n{large}\n{}", wrong[0], wrong[1], wrong[2]);

    let mut command = tidings.command(&["user", "import", "-", "--format", "jsonl", "--in-flight", "1", "--rejects"]);
    command.arg(&rejects).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut import = command.spawn().unwrap();
    import.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = import.wait_with_output().unwrap();

    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(FAILED), "{message}");
    for expected in
        ["line 2: nick: ", "line 4: expected a JSON object: ", "line 5: RESOURCE_EXHAUSTED", "line 6: handle: "]
    {
        assert!(message.contains(expected), "{expected}\n{message}");
    }
    let rejected = fs::read_to_string(&rejects).unwrap();
    assert_eq!(rejected, format!("{}\n{}\n{large}\n{}\n", wrong[0], wrong[1], wrong[2]));
    assert_eq!(users(&tidings), 1);
}

#[test]
fn users_are_found_by_handle_and_a_full_list_can_be_imported() {
    let dir = tempfile::tempdir().unwrap();
    let tidings = TidingsUp::start(&dir.path().join("up"));
    let rows: String =
        (0..600).fold("id,handle,age\n".to_owned(), |rows, index| format!("{rows}u{index:03},H{index},9\n"));
    let imported = json_of(&mut import(&tidings, &write(dir.path(), "users.csv", rows), &[]));
    assert_eq!(imported["created"], 600);

    let found = stdout_of(&mut tidings.command(&["user", "get", "--handle", "h7"]));
    assert_eq!((row(&found, "id"), row(&found, "handle")), (Some("u007"), Some("H7")));
    let strong = ["user", "get", "--handle", "H7", "--strong", "--output", "json"];
    assert_eq!(json_of(&mut tidings.command(&strong))["readInfo"]["source"], "SOURCE_POSTGRES");
    assert!(refused(&mut tidings.command(&["user", "get", "--handle", "nobody"]), FAILED).contains("USER_NOT_FOUND"));
    assert!(refused(&mut tidings.command(&["user", "get", "u001", "--handle", "h7"]), USAGE).contains("--handle"));

    let all = stdout_of(&mut tidings.command(&["user", "list", "--output", "jsonl"]));
    assert_eq!(all.lines().count(), 600, "each user once, from two pages");
    let ids: Vec<_> = all.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].to_string()).collect();
    assert!(ids.is_sorted(), "sorted by id");
    let some = json_of(&mut tidings.command(&["user", "list", "--limit", "501", "--output", "json"]));
    assert_eq!(some.as_array().unwrap().len(), 501);
    let table = stdout_of(&mut tidings.command(&["user", "list", "--handle-prefix", "h59"]));
    let listed: Vec<_> = table.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(listed[..3], ["u059", "u590", "u591"], "{table}");
    assert_eq!(listed.len(), 11, "{table}");

    let again = json_of(&mut import(&tidings, &write(dir.path(), "users.jsonl", all), &[]));
    assert_eq!((&again["created"], &again["already_existed"]), (&json!(0), &json!(600)));
}

#[test]
fn a_watch_prints_each_version_once_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let tidings = TidingsUp::start(dir.path());
    stdout_of(&mut tidings.command(&["user", "create", "ada"]));
    let mut command = tidings.command(&["user", "watch", "ada", "bob", "--output", "jsonl", "--timeout", "60s"]);
    let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (sender, lines_received) = mpsc::channel();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    thread::spawn(move || lines.for_each(|line| drop(sender.send(line.unwrap()))));
    let next =
        || -> Value { serde_json::from_str(&lines_received.recv_timeout(Duration::from_mins(1)).unwrap()).unwrap() };
    let change = |arguments: &[&str]| {
        eventually("the command succeeds", || {
            tidings.command(arguments).output().unwrap().status.success().then_some(())
        });
    };

    let first = [next(), next()];
    assert!(first.contains(&json!({"id": "ada", "version": "1"})), "{first:?}");
    assert!(first.contains(&json!({"id": "bob", "absent": true})), "{first:?}");
    change(&["user", "update", "ada", "--set", "age=37"]);
    assert_eq!(next(), json!({"id": "ada", "version": "2"}));
    tidings.signal("user", Signal::KILL);
    change(&["user", "create", "bob"]);
    assert_eq!(next(), json!({"id": "bob", "version": "1"}));
    change(&["user", "delete", "ada"]);
    assert_eq!(next(), json!({"id": "ada", "version": "3", "absent": true}));
    kill_process(Pid::from_raw(i32::try_from(watch.id()).unwrap()).unwrap(), Signal::INT).unwrap();
    assert!(watch.wait().unwrap().success());

    let table = stdout_of(&mut tidings.command(&["user", "watch", "ada", "--count", "1"]));
    assert!(table.trim_end().ends_with("Z  ada  version 3, deleted"), "{table}");
    assert!(refused(&mut tidings.command(&["user", "watch", "no spaces"]), USAGE).contains("INVALID_FIELDS"));
    let unreachable = ["user", "watch", "ada", "--addr", "127.0.0.1:1", "--timeout", "1s"];
    assert!(refused(&mut tidings.command(&unreachable), SERVICE).contains("is it running?"));
}

/// Writes a file of users without ids, in pairs of equal lines.
fn users_without_ids(dir: &Path, count: usize) -> PathBuf {
    let names = (0..count).map(|index| format!("Guest {}", index / 2));
    write(dir, "guests.csv", ["display_name".to_owned()].into_iter().chain(names).collect::<Vec<_>>().join("\n"))
}

#[test]
fn a_killed_or_interrupted_import_is_completed_by_a_second_run() {
    let dir = tempfile::tempdir().unwrap();
    let tidings = TidingsUp::start(&dir.path().join("up"));
    let count = 3_000;
    let file = users_without_ids(dir.path(), count);
    let flags = ["--import-name", "guests-1", "--in-flight", "4"];
    assert!(refused(&mut import(&tidings, &file, &[]), USAGE).contains("give the import an --import-name"));

    for (signal, least) in [(Signal::KILL, 100), (Signal::INT, 500)] {
        let mut command = import(&tidings, &file, &flags);
        let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        eventually("users are created", || (users(&tidings) > least).then_some(()));
        kill_process(Pid::from_raw(i32::try_from(running.id()).unwrap()).unwrap(), signal).unwrap();
        let output = running.wait_with_output().unwrap();
        if signal == Signal::INT {
            assert_eq!(output.status.code(), Some(FAILED), "{}", stderr(&output));
            assert!(
                stderr(&output).contains("interrupted; run the same command again to continue"),
                "{}",
                stderr(&output)
            );
            assert_eq!(summary(&output)["ended"], "interrupted");
        }
        assert!(users(&tidings) < i64::try_from(count).unwrap(), "the import was stopped before its end");
    }

    let last = json_of(&mut import(&tidings, &file, &flags));
    let (created, already) = (last["created"].as_i64().unwrap(), last["already_existed"].as_i64().unwrap());
    assert!(created > 0 && already > 500, "{last}");
    assert_eq!(created + already, i64::try_from(count).unwrap());
    assert_eq!(users(&tidings), i64::try_from(count).unwrap(), "one user per line, also for equal lines");

    // Lines may be added and removed: the import still recognizes the others.
    let text = fs::read_to_string(&file).unwrap().replace("display_name\nGuest 0\n", "display_name\nNew\nGuest 0\n");
    let again = json_of(&mut import(&tidings, &write(dir.path(), "more.csv", text), &flags));
    assert_eq!((&again["created"], &again["already_existed"]), (&json!(1), &json!(count)));
}

#[test]
fn an_import_waits_for_an_unavailable_service_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let tidings = TidingsUp::start(&dir.path().join("up"));
    let count = 3_000;
    let file = users_without_ids(dir.path(), count);
    let mut command =
        tidings.command(&["user", "import", "--import-name", "guests", "--in-flight", "4", "--output", "json"]);
    let running = command.arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let wait_for_progress = |what: &str| {
        let before = users(&tidings);
        eventually(what, || (users(&tidings) > before + 50).then_some(()));
    };

    wait_for_progress("users are created");
    tidings.signal("user", Signal::KILL);
    wait_for_progress("users are created after the service was killed");
    tidings.signal("redis-server", Signal::KILL);
    wait_for_progress("users are created after redis was killed");
    tidings.signal("user", Signal::STOP);
    thread::sleep(Duration::from_secs(7)); // exceeds the call timeout, and shows two progress lines
    tidings.signal("user", Signal::CONT);

    let output = running.wait_with_output().unwrap();
    let (message, counts) = (stderr(&output), summary(&output));
    assert!(output.status.success(), "{message}");
    assert!(message.contains("; waiting for the user service"), "{message}");
    assert!(counts["calls_retried"].as_i64().unwrap() > 0, "{counts}");
    assert_eq!(users(&tidings), i64::try_from(count).unwrap());

    let mut unreachable =
        import(&tidings, &file, &["--import-name", "guests", "--patience", "1s", "--addr", "127.0.0.1:1"]);
    let message = refused(&mut unreachable, SERVICE);
    assert!(
        message.contains("is it running?") && message.contains("run the same command again to continue"),
        "{message}"
    );
}
