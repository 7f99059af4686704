//! `tidings user`, each verb in a table and in JSON; imports that are wrong in places, killed, interrupted and left alone by the
//! service, after which each user is there exactly once.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{Up, eventually, finish, stderr};

/// Exit codes of the command.
const NO: i32 = 1;
const USAGE: i32 = 2;
const SERVICE: i32 = 3;

/// What a command that ended well printed.
fn done(command: &mut Command) -> String {
    let output = finish(command);
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The same, as JSON.
fn json_of(command: &mut Command) -> Value {
    serde_json::from_str(&done(command)).unwrap()
}

/// What a command says that ends with this code.
fn refused(command: &mut Command, code: i32) -> String {
    let output = finish(command);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

/// The value of a line of a table.
fn row<'a>(table: &'a str, name: &str) -> Option<&'a str> {
    table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::trim))
}

/// The summary of an import, however it ended.
fn summary(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(output)))
}

/// How many users there are.
fn users(up: &Up) -> i64 {
    up.count("tidings_user", "SELECT count(*) FROM user_account")
}

fn write(dir: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path
}

/// An import with its summary as JSON.
fn import(up: &Up, file: &Path, flags: &[&str]) -> Command {
    let mut command = up.command(&["user", "import"]);
    command.arg(file).args(["--quiet", "--output", "json"]).args(flags);
    command
}

#[test]
fn every_verb_answers_in_a_table_and_in_json() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path());
    let user = |arguments: &[&str]| up.command(&[&["user"], arguments].concat());

    let create = ["create", "ada", "--display-name", "Ada Lovelace", "--age", "36", "--attribute", "team=ops"];
    let created = done(&mut user(&create));
    assert_eq!(row(&created, "display_name"), Some("Ada Lovelace"));
    assert_eq!((row(&created, "attributes.team"), row(&created, "version")), (Some("ops"), Some("1")));
    let again = json_of(&mut user(&[&create[..], &["--output", "json"]].concat()));
    assert_eq!((&again["deduplicated"], &again["user"]["version"]), (&json!(true), &json!("1")));
    assert!(refused(&mut user(&["create", "ada", "--bio", "another"]), NO).contains("USER_ID_TAKEN"));
    let made = json_of(&mut user(&["create", "--display-name", "Bot", "--output", "json"]));
    let bot = made["user"]["id"].as_str().unwrap();
    assert_eq!(bot.len(), 36, "the service made an id: {bot}");

    let strong = done(&mut user(&["get", "ada", "--strong"]));
    assert_eq!(row(&strong, "read from"), Some("postgres"));
    let read = json_of(&mut user(&["get", "ada", "--min-version", "1", "--output", "json"]));
    assert_eq!((&read["user"]["age"], read["readInfo"]["source"].is_string()), (&json!(36), true));
    assert!(refused(&mut user(&["get", "ada", "--min-version", "9"]), NO).contains("VERSION_AHEAD"));
    assert!(refused(&mut user(&["get", "nobody"]), NO).contains("USER_NOT_FOUND"));
    let several = finish(&mut user(&["get", "nobody", bot, "ada"]));
    let table = String::from_utf8(several.stdout.clone()).unwrap();
    assert_eq!(several.status.code(), Some(NO), "{table}");
    assert!(stderr(&several).contains("no such user: nobody"), "{}", stderr(&several));
    assert!(table.lines().nth(1).is_some_and(|line| line.starts_with(bot)), "in the order asked for: {table}");
    let lines = done(&mut user(&["get", "ada", bot, "--output", "jsonl"]));
    assert_eq!(lines.lines().count(), 2);
    let both = json_of(&mut user(&["get", "ada", bot, "--output", "json"]));
    assert_eq!(both["results"][0]["user"]["id"], "ada");

    let change = ["--set", "attributes.desk=7", "--set", "bio=a=b", "--clear", "age"];
    let updated = done(&mut user(&[&["update", "ada"], &change[..]].concat()));
    assert_eq!((row(&updated, "attributes.team"), row(&updated, "attributes.desk")), (Some("ops"), Some("7")));
    assert_eq!((row(&updated, "age"), row(&updated, "version")), (None, Some("2")));
    let stale = ["update", "ada", "--set", "bio=x", "--expected-version", "1"];
    assert!(refused(&mut user(&stale), NO).contains("VERSION_MISMATCH"));
    let stale = ["update", "ada", "--set", "attributes.team=x", "--expected-version", "1"];
    assert!(refused(&mut user(&stale), NO).contains("ada has version 2, not 1; nothing was changed"));
    assert!(refused(&mut user(&["update", "ada"]), USAGE).contains("--set"));
    let cleared = ["update", "ada", "--clear", "attributes", "--expected-version", "2", "--output", "json"];
    let cleared = json_of(&mut user(&cleared));
    assert_eq!((&cleared["user"]["version"], cleared["user"].get("attributes")), (&json!("3"), None));

    assert!(refused(&mut user(&["delete", "ada", "--expected-version", "1"]), NO).contains("VERSION_MISMATCH"));
    assert!(done(&mut user(&["delete", "ada"])).starts_with("ada is deleted (version 4, "));
    assert_eq!(json_of(&mut user(&["delete", bot, "--output", "json"]))["version"], "2");
    assert!(refused(&mut user(&["delete", "ada"]), NO).contains("USER_NOT_FOUND"));
    assert!(refused(&mut user(&["create", "no spaces"]), USAGE).contains("user.id: expected 1 to 64"));
}

#[test]
fn lines_that_are_wrong_are_told_and_kept_and_the_others_are_created() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(&dir.path().join("up"));
    let rejects = dir.path().join("refused.csv");
    let keep = ["--rejects", rejects.to_str().unwrap()];
    let csv = "id,age,attributes.team,bio\nada,36,ops,\nbob,old,ops,\nno spaces,200,,\neve,7\ndan,,,\"two\nlines\"\n";
    let staff = write(dir.path(), "staff.csv", csv);

    let output = finish(&mut import(&up, &staff, &keep));

    let (said, counts) = (stderr(&output), summary(&output));
    assert_eq!(output.status.code(), Some(NO), "{said}");
    for told in [
        "line 3: age: expected a whole number of years",
        "line 4: id: expected 1 to 64 of [A-Za-z0-9._~-]",
        "line 4: age: expected 0 to 150, got 200",
        "line 5: expected 4 cells, got 2",
        "tidings: 3 of 5 lines were refused; they are in ",
    ] {
        assert!(said.contains(told), "{told}\n{said}");
    }
    assert_eq!((&counts["created"], &counts["refused"], &counts["ended"]), (&json!(2), &json!(3), &json!("whole")));
    assert_eq!((&counts["refusals"][0]["line"], &counts["refusals"][0]["field"]), (&json!(3), &json!("age")));
    assert_eq!(done(&mut up.command(&["user", "get", "ada", "dan", "--output", "jsonl"])).lines().count(), 2);

    let kept = fs::read_to_string(&rejects).unwrap();
    assert_eq!(kept, "id,age,attributes.team,bio\nbob,old,ops,\nno spaces,200,,\neve,7\n");
    let corrected = kept.replace("old", "40").replace("no spaces,200", "cat,20").replace("eve,7", "eve,7,,");
    let corrected = write(dir.path(), "corrected.csv", corrected);
    assert_eq!(json_of(&mut import(&up, &corrected, &[]))["created"], 3);
    let table = done(up.command(&["user", "import", "--quiet"]).arg(&corrected));
    assert_eq!((row(&table, "created"), row(&table, "already there")), (Some("0"), Some("3")));

    let first = refused(&mut import(&up, &staff, &["--stop-on-error", "--in-flight", "1"]), NO);
    assert!(first.contains("line 3: ") && !first.contains("line 4: "), "{first}");
}

#[test]
fn json_lines_are_imported_from_standard_input_and_those_that_are_wrong_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(&dir.path().join("up"));
    let rejects = dir.path().join("refused.jsonl");
    let wrong = ["{\"id\": \"eve\", \"nick\": \"x\"}", "not json", "{\"id\": \"dan\", \"handle\": \"ADA\"}"];
    let large = format!("{{\"id\": \"large\", \"bio\": \"{}\"}}", "x".repeat(300_000));
    let right = "{\"id\": \"ada\", \"handle\": \"ada\", \"displayName\": \"Ada\", \"version\": \"7\"}";
    let text = format!("{right}\n{}\n\n{}\r\n{large}\n{}", wrong[0], wrong[1], wrong[2]);

    let mut command = up.command(&["user", "import", "-", "--format", "jsonl", "--in-flight", "1", "--rejects"]);
    command.arg(&rejects).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut import = command.spawn().unwrap();
    import.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = import.wait_with_output().unwrap();

    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(NO), "{said}");
    for told in ["line 2: nick: ", "line 4: expected a JSON object: ", "line 5: RESOURCE_EXHAUSTED", "line 6: handle: "]
    {
        assert!(said.contains(told), "{told}\n{said}");
    }
    let kept = fs::read_to_string(&rejects).unwrap();
    assert_eq!(kept, format!("{}\n{}\n{large}\n{}\n", wrong[0], wrong[1], wrong[2]));
    assert_eq!(users(&up), 1);
}

#[test]
fn users_are_found_by_handle_and_listed_page_after_page_and_a_list_can_be_imported() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(&dir.path().join("up"));
    let rows: String =
        (0..600).fold("id,handle,age\n".to_owned(), |rows, place| format!("{rows}u{place:03},H{place},9\n"));
    let imported = json_of(&mut import(&up, &write(dir.path(), "users.csv", rows), &[]));
    assert_eq!(imported["created"], 600);

    let found = done(&mut up.command(&["user", "get", "--handle", "h7"]));
    assert_eq!((row(&found, "id"), row(&found, "handle")), (Some("u007"), Some("H7")));
    let strong = ["user", "get", "--handle", "H7", "--strong", "--output", "json"];
    assert_eq!(json_of(&mut up.command(&strong))["readInfo"]["source"], "SOURCE_POSTGRES");
    assert!(refused(&mut up.command(&["user", "get", "--handle", "nobody"]), NO).contains("USER_NOT_FOUND"));
    assert!(refused(&mut up.command(&["user", "get", "u001", "--handle", "h7"]), USAGE).contains("--handle"));

    let all = done(&mut up.command(&["user", "list", "--output", "jsonl"]));
    assert_eq!(all.lines().count(), 600, "over two pages, each once");
    let ids: Vec<_> = all.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].to_string()).collect();
    assert!(ids.is_sorted(), "by id");
    let some = json_of(&mut up.command(&["user", "list", "--limit", "501", "--output", "json"]));
    assert_eq!(some.as_array().unwrap().len(), 501);
    let table = done(&mut up.command(&["user", "list", "--handle-prefix", "h59"]));
    let listed: Vec<_> = table.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(listed[..3], ["u059", "u590", "u591"], "{table}");
    assert_eq!(listed.len(), 11, "{table}");

    let again = json_of(&mut import(&up, &write(dir.path(), "users.jsonl", all), &[]));
    assert_eq!((&again["created"], &again["already_there"]), (&json!(0), &json!(600)));
}

#[test]
fn a_watch_tells_each_version_once_across_a_restart_of_the_service() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path());
    done(&mut up.command(&["user", "create", "ada"]));
    let mut command = up.command(&["user", "watch", "ada", "bob", "--output", "jsonl", "--timeout", "60s"]);
    let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (sender, heard) = mpsc::channel();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    thread::spawn(move || lines.for_each(|line| drop(sender.send(line.unwrap()))));
    let next = || -> Value { serde_json::from_str(&heard.recv_timeout(Duration::from_mins(1)).unwrap()).unwrap() };
    let change = |arguments: &[&str]| {
        eventually("the service does it", || up.command(arguments).output().unwrap().status.success().then_some(()));
    };

    let first = [next(), next()];
    assert!(first.contains(&json!({"id": "ada", "version": "1"})), "{first:?}");
    assert!(first.contains(&json!({"id": "bob", "absent": true})), "{first:?}");
    change(&["user", "update", "ada", "--set", "age=37"]);
    assert_eq!(next(), json!({"id": "ada", "version": "2"}));
    up.signal("user", Signal::KILL);
    change(&["user", "create", "bob"]);
    assert_eq!(next(), json!({"id": "bob", "version": "1"}));
    change(&["user", "delete", "ada"]);
    assert_eq!(next(), json!({"id": "ada", "version": "3", "absent": true}));
    kill_process(Pid::from_raw(i32::try_from(watch.id()).unwrap()).unwrap(), Signal::INT).unwrap();
    assert!(watch.wait().unwrap().success());

    let table = done(&mut up.command(&["user", "watch", "ada", "--count", "1"]));
    assert!(table.trim_end().ends_with("Z  ada  version 3, deleted"), "{table}");
    assert!(refused(&mut up.command(&["user", "watch", "no spaces"]), USAGE).contains("INVALID_FIELDS"));
    let nobody = ["user", "watch", "ada", "--addr", "127.0.0.1:1", "--timeout", "1s"];
    assert!(refused(&mut up.command(&nobody), SERVICE).contains("is it running?"));
}

/// A file of users who have no name of their own, some of them equal.
fn nameless(dir: &Path, count: usize) -> PathBuf {
    let names = (0..count).map(|place| format!("Guest {}", place / 2));
    write(dir, "guests.csv", ["display_name".to_owned()].into_iter().chain(names).collect::<Vec<_>>().join("\n"))
}

#[test]
fn an_import_that_is_killed_and_interrupted_is_finished_by_the_same_command_and_each_user_is_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(&dir.path().join("up"));
    let count = 3_000;
    let file = nameless(dir.path(), count);
    let named = ["--import-name", "guests-1", "--in-flight", "4"];
    assert!(refused(&mut import(&up, &file, &[]), USAGE).contains("give the import an --import-name"));

    for (signal, least) in [(Signal::KILL, 100), (Signal::INT, 500)] {
        let mut command = import(&up, &file, &named);
        let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        eventually("users are created", || (users(&up) > least).then_some(()));
        kill_process(Pid::from_raw(i32::try_from(running.id()).unwrap()).unwrap(), signal).unwrap();
        let output = running.wait_with_output().unwrap();
        if signal == Signal::INT {
            assert_eq!(output.status.code(), Some(NO), "{}", stderr(&output));
            assert!(stderr(&output).contains("interrupted; the same command again goes on"), "{}", stderr(&output));
            assert_eq!(summary(&output)["ended"], "interrupted");
        }
        assert!(users(&up) < i64::try_from(count).unwrap(), "it was ended in the middle");
    }

    let last = json_of(&mut import(&up, &file, &named));
    let (created, already) = (last["created"].as_i64().unwrap(), last["already_there"].as_i64().unwrap());
    assert!(created > 0 && already > 500, "{last}");
    assert_eq!(created + already, i64::try_from(count).unwrap());
    assert_eq!(users(&up), i64::try_from(count).unwrap(), "each line is one user, equal ones too");

    // Lines may come and go: those that stay are known again.
    let text = fs::read_to_string(&file).unwrap().replace("display_name\nGuest 0\n", "display_name\nNew\nGuest 0\n");
    let again = json_of(&mut import(&up, &write(dir.path(), "more.csv", text), &named));
    assert_eq!((&again["created"], &again["already_there"]), (&json!(1), &json!(count)));
}

#[test]
fn an_import_waits_for_a_service_that_is_away_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(&dir.path().join("up"));
    let count = 3_000;
    let file = nameless(dir.path(), count);
    let mut command =
        up.command(&["user", "import", "--import-name", "guests", "--in-flight", "4", "--output", "json"]);
    let running = command.arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let further = |what: &str| {
        let before = users(&up);
        eventually(what, || (users(&up) > before + 50).then_some(()));
    };

    further("users are created");
    up.signal("user", Signal::KILL);
    further("users are created after the service was killed");
    up.signal("redis-server", Signal::KILL);
    further("users are created after redis was killed");
    up.signal("user", Signal::STOP);
    thread::sleep(Duration::from_secs(7)); // longer than a call waits, and two lines of progress
    up.signal("user", Signal::CONT);

    let output = running.wait_with_output().unwrap();
    let (said, counts) = (stderr(&output), summary(&output));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("; waiting for the user service"), "{said}");
    assert!(counts["calls_repeated"].as_i64().unwrap() > 0, "{counts}");
    assert_eq!(users(&up), i64::try_from(count).unwrap());

    let mut nobody = import(&up, &file, &["--import-name", "guests", "--patience", "1s", "--addr", "127.0.0.1:1"]);
    let said = refused(&mut nobody, SERVICE);
    assert!(said.contains("is it running?") && said.contains("the same command again goes on"), "{said}");
}
