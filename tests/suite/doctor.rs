//! `tidings doctor` on an installation that is well, and on one that is not.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tidings_devstack::{Devstack, Options};

use crate::service::Service;
use crate::support::{TIDINGS, Up, eventually, finish, root, stderr};

/// What it found, each as verdict and check, and its exit code.
fn look(command: &mut Command) -> (Vec<Value>, i32) {
    let output = finish(command.args(["--output", "jsonl"]));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let findings = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (findings, output.status.code().unwrap_or_else(|| panic!("{}", stderr(&output))))
}

/// The findings of a check.
fn of<'a>(findings: &'a [Value], check: &str) -> Vec<&'a Value> {
    findings.iter().filter(|finding| finding["check"] == check).collect()
}

/// The checks with this verdict.
fn with<'a>(findings: &'a [Value], verdict: &str) -> Vec<&'a str> {
    let with = findings.iter().filter(|finding| finding["verdict"] == verdict);
    with.map(|finding| finding["check"].as_str().unwrap()).collect()
}

#[test]
fn of_an_installation_that_is_well_every_check_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path());
    let other = up.another("user");
    let both = format!("{},{}", up.address("user"), other.address());
    let doctor = || {
        let mut command = up.command(&["doctor", "--user-postgres-url", up.postgres(), "--user-redis-url", up.redis()]);
        command.env("TIDINGS_USER_ADDR", &both);
        command
    };
    // An instance that has just begun may have to find its caches first.
    let (findings, code) = eventually("the caches of the second instance answer", || {
        let (findings, code) = look(&mut doctor());
        of(&findings, "near cache").iter().all(|near| near["verdict"] == "ok").then_some((findings, code))
    });

    assert_eq!((code, with(&findings, "fail")), (0, vec![]), "{findings:#?}");
    // Nobody waits for a standby here, and the one Redis keeps locks, too.
    assert_eq!(with(&findings, "warn"), ["an OK survives the primary", "memory"], "{findings:#?}");
    for (check, times) in
        [("reachable", 6), ("health", 5), ("clock", 6), ("a read", 5), ("create", 1), ("update is seen", 2)]
    {
        assert_eq!(of(&findings, check).len(), times, "{check}: {findings:#?}");
    }
    for check in
        ["redis cache", "near cache", "STRONG read", "delete", "migrations", "outbox", "an OK survives a crash"]
    {
        assert!(of(&findings, check).iter().all(|finding| finding["verdict"] == "ok"), "{check}: {findings:#?}");
        assert!(!of(&findings, check).is_empty(), "{check}: {findings:#?}");
    }
    let left = "SELECT count(*) FROM user_account WHERE delete_time IS NULL";
    assert_eq!(up.count("tidings_user", left), 0, "the user that was made is gone");

    let table = finish(&mut doctor());
    let said = String::from_utf8(table.stdout).unwrap();
    assert!(said.lines().next().is_some_and(|line| line.starts_with("ok    user 127.0.0.1:")), "{said}");
    assert!(said.trim_end().ends_with(" 2 warn, 0 FAIL"), "{said}");
    let all = finish(doctor().args(["--read-only", "--output", "json"]));
    let all: Value = serde_json::from_slice(&all.stdout).unwrap();
    assert_eq!(of(all.as_array().unwrap(), "create").len(), 0, "nothing is created when nothing may be");
}

#[test]
fn while_redis_stands_still_users_are_well_but_slower_and_locks_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path());
    up.signal("redis-server", Signal::STOP);
    for service in ["user", "lock"] {
        eventually("it is noticed", || up.readyz(service).1.contains("redis NOT_SERVING").then_some(()));
    }

    let (findings, code) = look(&mut up.command(&["doctor", "--service", "user"]));

    assert_eq!((code, with(&findings, "fail")), (0, vec![]), "{findings:#?}");
    assert_eq!(with(&findings, "warn"), ["health", "redis cache", "near cache"], "{findings:#?}");
    assert!(of(&findings, "health")[0]["advice"].as_str().unwrap().contains("see to redis"), "{findings:#?}");

    let redis = ["doctor", "--service", "lock", "--user-redis-url", up.redis(), "--timeout", "1s"];
    let (findings, code) = look(&mut up.command(&redis));
    assert_eq!(code, 1, "{findings:#?}");
    assert_eq!(of(&findings, "reachable").last().unwrap()["verdict"], "fail", "{findings:#?}");
    let of_redis =
        |finding: &&Value| finding["found"].as_str().is_some_and(|found| found.starts_with("redis NOT_SERVING"));
    assert_eq!(findings.iter().find(of_redis).unwrap()["verdict"], "fail", "{findings:#?}");
}

#[test]
fn while_postgres_stands_still_it_says_that_postgres_does() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path());
    up.signal_all_of("postgres", Signal::STOP);
    eventually("it is noticed", || up.readyz("user").1.contains("postgres NOT_SERVING").then_some(()));

    let doctor = ["doctor", "--service", "user,broadcast", "--user-postgres-url", up.postgres(), "--timeout", "2s"];
    let (findings, code) = look(&mut up.command(&doctor));
    up.signal_all_of("postgres", Signal::CONT);

    assert_eq!(code, 1, "{findings:#?}");
    for check in ["health", "a read", "reachable"] {
        assert!(with(&findings, "fail").contains(&check), "{check}: {findings:#?}");
    }
    assert_eq!(of(&findings, "create").len(), 0, "who can not read is not written to: {findings:#?}");
    let of_broadcast = |finding: &&Value| finding["of"].as_str().is_some_and(|of| of.starts_with("broadcast "));
    assert!(findings.iter().filter(of_broadcast).all(|finding| finding["verdict"] == "ok"), "{findings:#?}");
}

#[tokio::test]
async fn a_postgres_that_may_lose_what_it_acknowledged_or_has_no_schema_is_told() {
    let stack = Devstack::start(Options { durable: true, ..Options::temporary() }).await.unwrap();
    stack.postgres().create_database("bare").await.unwrap();
    let url = stack.postgres().url("bare");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let doctor = ["doctor", "--service", "user", "--user-addr", "127.0.0.1:1", "--user-postgres-url", &url];
    let findings = || look(Command::new(TIDINGS).args(doctor)).0;
    let told = |check: &str, verdict: &str, words: &str| {
        let findings = findings();
        let finding = of(&findings, check)[0];
        let found = format!("{} {}", finding["found"], finding["advice"]);
        assert!(finding["verdict"] == verdict && found.contains(words), "{verdict}, {words}: {findings:#?}");
    };

    told("migrations", "fail", "tidings-user migrate");
    assert!(of(&findings(), "outbox").is_empty(), "there is none yet");
    told("an OK survives a crash", "ok", "are on");
    for (setting, words) in [
        ("ALTER DATABASE bare SET synchronous_commit = off", "no: synchronous_commit is off"),
        ("ALTER DATABASE bare SET synchronous_commit = on", "are on"),
        ("ALTER SYSTEM SET full_page_writes = off", "no: full_page_writes is off"),
        ("ALTER SYSTEM RESET full_page_writes", "are on"),
    ] {
        for statement in [setting, "SELECT pg_reload_conf()", "SELECT pg_sleep(0.3)"] {
            sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        }
        told("an OK survives a crash", if words == "are on" { "ok" } else { "fail" }, words);
    }

    told("an OK survives the primary", "warn", "name a standby");
    for statement in
        ["ALTER SYSTEM SET synchronous_standby_names = 'bob'", "SELECT pg_reload_conf()", "SELECT pg_sleep(0.3)"]
    {
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    }
    told("an OK survives the primary", "fail", "none of them is there");
    sqlx::raw_sql("ALTER SYSTEM RESET synchronous_standby_names").execute(&mut connection).await.unwrap();
    sqlx::raw_sql("SELECT pg_reload_conf()").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    stack.stop().await;
}

/// A token with these scopes, in a file of its own, and in the list.
fn token(dir: &Path, name: &str, scopes: &str, list: &str) -> String {
    let file = dir.join(name);
    let mut command = Command::new(TIDINGS);
    command.args(["token", "new", "--name", name, "--scope", scopes, "--out"]).arg(&file);
    assert!(command.arg("--append").arg(dir.join(list)).status().unwrap().success());
    file.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_wrong_or_may_too_little_is_told_with_the_right_one() {
    let dir = tempfile::tempdir().unwrap();
    let [good, reader] = [("good", "user:read,user:write"), ("reader", "user:read")]
        .map(|(name, scopes)| token(dir.path(), name, scopes, "tokens"));
    let unknown = token(dir.path(), "unknown", "user:read", "others");
    let stack: &'static Devstack = Box::leak(Box::new(Devstack::start(Options::temporary()).await.unwrap()));
    let service = Service::on(stack, "user", &["--token-file", dir.path().join("tokens").to_str().unwrap()], &[]).await;
    service.until("readiness SERVING").await;
    let address = service.address.to_string();
    let doctor = |token: &[&str]| {
        let mut command = Command::new(TIDINGS);
        command.current_dir(root()).args(["doctor", "--service", "user", "--user-addr", &address]).args(token);
        command
    };

    for (flags, check, advice) in [
        (&[][..], "a read", "--token-file"),
        (&["--token-file", &unknown], "a read", "--token-file"),
        (&["--token-file", &reader], "create", "user:write"),
    ] {
        let (findings, code) = look(&mut doctor(flags));
        assert_eq!((code, with(&findings, "fail")), (1, vec![check]), "{findings:#?}");
        assert!(of(&findings, check)[0]["advice"].as_str().unwrap().contains(advice), "{findings:#?}");
    }
    let (findings, code) = look(&mut doctor(&["--token-file", &good]));
    assert_eq!((code, with(&findings, "fail")), (0, vec![]), "{findings:#?}");
    assert_eq!(look(&mut doctor(&["--token-file", &reader, "--read-only"])).1, 0);

    let missing = finish(&mut doctor(&["--token-file", "/nowhere"]));
    assert_eq!(missing.status.code(), Some(2), "{}", stderr(&missing));
    fs::remove_file(&good).unwrap();
}

#[test]
fn where_nobody_listens_it_says_what_to_start() {
    let mut command = Command::new(TIDINGS);
    command.args(["doctor", "--service", "user", "--user-addr", "127.0.0.1:1"]);
    command.args([
        "--user-redis-url",
        "redis://127.0.0.1:1",
        "--user-postgres-url",
        "postgres://ada:hunter2@127.0.0.1:1/x",
    ]);

    let (findings, code) = look(&mut command);

    assert_eq!(code, 1);
    assert_eq!(with(&findings, "fail"), ["reachable", "reachable", "reachable"], "{findings:#?}");
    assert_eq!(findings[0]["found"], json!("nobody listens there"));
    assert!(findings[0]["advice"].as_str().unwrap().contains("tidings serve user"), "{findings:#?}");
    assert!(!format!("{findings:?}").contains("hunter2"), "{findings:#?}");
}
