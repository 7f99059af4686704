//! `tidings doctor` on healthy and on broken installations.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tidings_devstack::{Devstack, Options};

use crate::service::TestService;
use crate::support::{TIDINGS, TidingsUp, eventually, output_of, root, stderr};

/// Runs `tidings doctor`; returns its findings and exit code.
fn run_doctor(command: &mut Command) -> (Vec<Value>, i32) {
    let output = output_of(command.args(["--output", "jsonl"]));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let findings = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (findings, output.status.code().unwrap_or_else(|| panic!("{}", stderr(&output))))
}

/// Returns the findings of a check.
fn findings_of<'a>(findings: &'a [Value], check: &str) -> Vec<&'a Value> {
    findings.iter().filter(|finding| finding["check"] == check).collect()
}

/// Returns the names of the checks with a verdict.
fn checks_with<'a>(findings: &'a [Value], verdict: &str) -> Vec<&'a str> {
    let matching = findings.iter().filter(|finding| finding["verdict"] == verdict);
    matching.map(|finding| finding["check"].as_str().unwrap()).collect()
}

#[test]
fn every_check_passes_on_a_healthy_installation() {
    let dir = tempfile::tempdir().unwrap();
    let tidings = TidingsUp::start(dir.path());
    let other = tidings.start_another("user");
    let both = format!("{},{}", tidings.address("user"), other.address());
    let doctor = || {
        let mut command = tidings.command(&[
            "doctor",
            "--user-postgres-url",
            tidings.postgres(),
            "--user-redis-url",
            tidings.redis(),
        ]);
        command.env("TIDINGS_USER_ADDR", &both);
        command
    };
    // An instance that has just started may not use its caches yet.
    let (findings, code) = eventually("the caches of the second instance answer", || {
        let (findings, code) = run_doctor(&mut doctor());
        findings_of(&findings, "local cache")
            .iter()
            .all(|finding| finding["verdict"] == "ok")
            .then_some((findings, code))
    });

    assert_eq!((code, checks_with(&findings, "fail")), (0, vec![]), "{findings:#?}");
    // There is no standby, and the same Redis holds locks and caches.
    assert_eq!(checks_with(&findings, "warn"), ["replication", "memory"], "{findings:#?}");
    for (check, times) in
        [("reachable", 6), ("health", 5), ("clock", 6), ("read", 5), ("create", 1), ("update visible", 2)]
    {
        assert_eq!(findings_of(&findings, check).len(), times, "{check}: {findings:#?}");
    }
    for check in ["redis cache", "local cache", "strong read", "delete", "migrations", "outbox", "crash safety"] {
        assert!(
            findings_of(&findings, check).iter().all(|finding| finding["verdict"] == "ok"),
            "{check}: {findings:#?}"
        );
        assert!(!findings_of(&findings, check).is_empty(), "{check}: {findings:#?}");
    }
    let remaining = "SELECT count(*) FROM user_account WHERE delete_time IS NULL";
    assert_eq!(tidings.count("tidings_user", remaining), 0, "doctor deletes the user that it created");

    let table = output_of(&mut doctor());
    let text = String::from_utf8(table.stdout).unwrap();
    assert!(text.lines().next().is_some_and(|line| line.starts_with("ok    user 127.0.0.1:")), "{text}");
    assert!(text.trim_end().ends_with(" 2 warn, 0 FAIL"), "{text}");
    let read_only = output_of(doctor().args(["--read-only", "--output", "json"]));
    let read_only: Value = serde_json::from_slice(&read_only.stdout).unwrap();
    assert_eq!(findings_of(read_only.as_array().unwrap(), "create").len(), 0, "--read-only creates nothing");
}

/// An address that is not one of loopback, and reaches the same server.
#[test]
fn plain_text_to_postgres_over_a_network_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let tidings = TidingsUp::start(dir.path());
    let url = tidings.postgres().replace("127.0.0.1", "0.0.0.0");
    let history = url.replace("tidings_user", "tidings_history");

    let doctor = |url: &str| {
        let flags = ["doctor", "--service", "lock", "--read-only", "--user-postgres-url", url];
        run_doctor(&mut tidings.command(&flags)).0
    };

    let tls = doctor(&url);
    let tls = findings_of(&tls, "tls");
    assert_eq!((tls.len(), &tls[0]["verdict"]), (1, &json!("warn")), "{tls:#?}");
    assert!(tls[0]["found"].as_str().unwrap().starts_with("plain text over the network"), "{tls:#?}");
    let foreign = doctor(&history);
    let foreign = findings_of(&foreign, "migrations");
    assert_eq!(foreign[0]["verdict"], "fail", "{foreign:#?}");
    let found = foreign[0]["found"].as_str().unwrap();
    assert!(found.contains("belongs to the service history, this is user"), "{found}");
}

#[test]
fn a_stopped_redis_is_a_warning_for_user_and_a_failure_for_lock() {
    let dir = tempfile::tempdir().unwrap();
    let tidings = TidingsUp::start(dir.path());
    tidings.signal("redis-server", Signal::STOP);
    for service in ["user", "lock"] {
        eventually("health reports the outage", || {
            tidings.readyz(service).1.contains("redis NOT_SERVING").then_some(())
        });
    }

    let (findings, code) = run_doctor(&mut tidings.command(&["doctor", "--service", "user"]));

    assert_eq!((code, checks_with(&findings, "fail")), (0, vec![]), "{findings:#?}");
    assert_eq!(checks_with(&findings, "warn"), ["health", "redis cache", "local cache"], "{findings:#?}");
    assert!(findings_of(&findings, "health")[0]["advice"].as_str().unwrap().contains("check redis"), "{findings:#?}");

    let redis = ["doctor", "--service", "lock", "--user-redis-url", tidings.redis(), "--timeout", "1s"];
    let (findings, code) = run_doctor(&mut tidings.command(&redis));
    assert_eq!(code, 1, "{findings:#?}");
    assert_eq!(findings_of(&findings, "reachable").last().unwrap()["verdict"], "fail", "{findings:#?}");
    let is_redis_entry =
        |finding: &&Value| finding["found"].as_str().is_some_and(|found| found.starts_with("redis NOT_SERVING"));
    assert_eq!(findings.iter().find(is_redis_entry).unwrap()["verdict"], "fail", "{findings:#?}");
}

#[test]
fn a_stopped_postgres_fails_only_the_checks_that_need_it() {
    let dir = tempfile::tempdir().unwrap();
    let tidings = TidingsUp::start(dir.path());
    tidings.signal_all_processes("postgres", Signal::STOP);
    eventually("health reports the outage", || tidings.readyz("user").1.contains("postgres NOT_SERVING").then_some(()));

    let doctor =
        ["doctor", "--service", "user,broadcast", "--user-postgres-url", tidings.postgres(), "--timeout", "2s"];
    let (findings, code) = run_doctor(&mut tidings.command(&doctor));
    tidings.signal_all_processes("postgres", Signal::CONT);

    assert_eq!(code, 1, "{findings:#?}");
    for check in ["health", "read", "reachable"] {
        assert!(checks_with(&findings, "fail").contains(&check), "{check}: {findings:#?}");
    }
    assert_eq!(findings_of(&findings, "create").len(), 0, "no write after a failed read: {findings:#?}");
    let is_broadcast =
        |finding: &&Value| finding["target"].as_str().is_some_and(|target| target.starts_with("broadcast "));
    assert!(findings.iter().filter(is_broadcast).all(|finding| finding["verdict"] == "ok"), "{findings:#?}");
}

#[tokio::test]
async fn a_postgres_without_schema_or_crash_safety_is_reported() {
    let stack = Devstack::start(Options { durable: true, ..Options::temporary() }).await.unwrap();
    stack.postgres().create_database("bare").await.unwrap();
    let url = stack.postgres().url("bare");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let doctor = ["doctor", "--service", "user", "--user-addr", "127.0.0.1:1", "--user-postgres-url", &url];
    let findings = || run_doctor(Command::new(TIDINGS).args(doctor)).0;
    let assert_finding = |check: &str, verdict: &str, words: &str| {
        let findings = findings();
        let finding = findings_of(&findings, check)[0];
        let found = format!("{} {}", finding["found"], finding["advice"]);
        assert!(finding["verdict"] == verdict && found.contains(words), "{verdict}, {words}: {findings:#?}");
    };

    assert_finding("migrations", "fail", "tidings-user migrate");
    assert!(findings_of(&findings(), "outbox").is_empty(), "the outbox table does not exist yet");
    assert_finding("crash safety", "ok", "are on");
    for (setting, words) in [
        ("ALTER DATABASE bare SET synchronous_commit = off", "may be lost: synchronous_commit is off"),
        ("ALTER DATABASE bare SET synchronous_commit = on", "are on"),
        ("ALTER SYSTEM SET full_page_writes = off", "may be lost: full_page_writes is off"),
        ("ALTER SYSTEM RESET full_page_writes", "are on"),
    ] {
        for statement in [setting, "SELECT pg_reload_conf()", "SELECT pg_sleep(0.3)"] {
            sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        }
        assert_finding("crash safety", if words == "are on" { "ok" } else { "fail" }, words);
    }

    assert_finding("replication", "warn", "name a standby");
    for statement in
        ["ALTER SYSTEM SET synchronous_standby_names = 'bob'", "SELECT pg_reload_conf()", "SELECT pg_sleep(0.3)"]
    {
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    }
    assert_finding("replication", "fail", "none is connected");
    sqlx::raw_sql("ALTER SYSTEM RESET synchronous_standby_names").execute(&mut connection).await.unwrap();
    sqlx::raw_sql("SELECT pg_reload_conf()").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    stack.stop().await;
}

/// Creates a token with these scopes in its own file and in a token list; returns the file's path.
fn token(dir: &Path, name: &str, scopes: &str, list: &str) -> String {
    let file = dir.join(name);
    let mut command = Command::new(TIDINGS);
    command.args(["token", "new", "--name", name, "--scope", scopes, "--out"]).arg(&file);
    assert!(command.arg("--append").arg(dir.join(list)).status().unwrap().success());
    file.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_or_insufficient_token_is_reported_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let [good, reader] = [("good", "user:read,user:write"), ("reader", "user:read")]
        .map(|(name, scopes)| token(dir.path(), name, scopes, "tokens"));
    let unknown = token(dir.path(), "unknown", "user:read", "others");
    let stack: &'static Devstack = Box::leak(Box::new(Devstack::start(Options::temporary()).await.unwrap()));
    let service =
        TestService::start_on(stack, "user", &["--token-file", dir.path().join("tokens").to_str().unwrap()], &[]).await;
    service.wait_for_health("readiness SERVING").await;
    let address = service.address.to_string();
    let doctor = |token: &[&str]| {
        let mut command = Command::new(TIDINGS);
        command.current_dir(root()).args(["doctor", "--service", "user", "--user-addr", &address]).args(token);
        command
    };

    for (flags, check, advice) in [
        (&[][..], "read", "--token-file"),
        (&["--token-file", &unknown], "read", "--token-file"),
        (&["--token-file", &reader], "create", "user:write"),
    ] {
        let (findings, code) = run_doctor(&mut doctor(flags));
        assert_eq!((code, checks_with(&findings, "fail")), (1, vec![check]), "{findings:#?}");
        assert!(findings_of(&findings, check)[0]["advice"].as_str().unwrap().contains(advice), "{findings:#?}");
    }
    let (findings, code) = run_doctor(&mut doctor(&["--token-file", &good]));
    assert_eq!((code, checks_with(&findings, "fail")), (0, vec![]), "{findings:#?}");
    assert_eq!(run_doctor(&mut doctor(&["--token-file", &reader, "--read-only"])).1, 0);

    let missing = output_of(&mut doctor(&["--token-file", "/nowhere"]));
    assert_eq!(missing.status.code(), Some(2), "{}", stderr(&missing));
    fs::remove_file(&good).unwrap();
}

#[test]
fn an_unreachable_service_is_reported_with_the_command_to_start() {
    let mut command = Command::new(TIDINGS);
    command.args(["doctor", "--service", "user", "--user-addr", "127.0.0.1:1"]);
    command.args([
        "--user-redis-url",
        "redis://127.0.0.1:1",
        "--user-postgres-url",
        "postgres://ada:hunter2@127.0.0.1:1/x",
    ]);

    let (findings, code) = run_doctor(&mut command);

    assert_eq!(code, 1);
    assert_eq!(checks_with(&findings, "fail"), ["reachable", "reachable", "reachable"], "{findings:#?}");
    assert_eq!(findings[0]["found"], json!("connection refused"));
    assert!(findings[0]["advice"].as_str().unwrap().contains("tidings serve user"), "{findings:#?}");
    assert!(!format!("{findings:?}").contains("hunter2"), "{findings:#?}");
}
