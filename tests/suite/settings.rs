//! Each setting of each service set wrong, once as a variable and once as a flag: the program ends at once and says what is
//! expected, before it has done anything.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use clap::Arg;

use crate::support::{TIDINGS, finish, port_offset, stderr};

/// A value that each flag refuses, and what it says that it expects. Who adds a flag adds a line.
const WRONG: &[(&str, &str, &str)] = &[
    ("admin-listen", "localhost", "expected ADDR:PORT"),
    ("allow-eviction", "maybe", "expected true or false"),
    ("broadcast-addr", "nowhere", "expected HOST:PORT or https://HOST:PORT, e.g. 127.0.0.1:7401"),
    ("broadcast-ca", MISSING, NO_FILE),
    ("broadcast-cert", MISSING, NO_FILE),
    ("broadcast-compare-interval", "0s", DURATION),
    ("broadcast-heartbeat", "often", DURATION),
    ("broadcast-history-age", "61m", "expected at most 1h"),
    ("broadcast-history-count", "1001", "expected 1 to 1000"),
    ("broadcast-key", MISSING, NO_FILE),
    ("broadcast-linger", "0s", DURATION),
    ("broadcast-max-streams", "0", "expected 1 to 4294967295"),
    ("broadcast-patience", "5x", DURATION),
    ("broadcast-ring-bytes", "-1", "expected a number of bytes"),
    ("broadcast-ring-messages", "0", "expected 1 to 100000"),
    ("broadcast-rings-bytes", "256M", "expected a number of bytes"),
    ("broadcast-token-file", MISSING, NO_FILE),
    ("connection-age", "30", DURATION_OR_ZERO),
    ("connection-grace", "0s", DURATION),
    ("drain", "0s", DURATION),
    ("history-lease-ttl", "3", DURATION),
    ("history-park-after", "0", "expected 1 to 1000"),
    ("history-relay-tick", "0s", DURATION),
    ("history-tail-ttl", "a day", DURATION),
    ("insecure", "maybe", "expected true or false"),
    ("keepalive-interval", "never", DURATION_OR_ZERO),
    ("keepalive-timeout", "0s", DURATION),
    ("lame-duck", "3", DURATION_OR_ZERO),
    ("listen", "7401", "expected ADDR:PORT"),
    ("lock-default-ttl", "301s", "expected a duration from 1s to 300s"),
    ("lock-fresh-start", "maybe", "expected true or false"),
    ("lock-max-waiters", "0", "expected 1 to 1000000"),
    ("lock-reread-tick", "0s", DURATION),
    ("lock-sweep-tick", "501ms", "expected a duration of at most 500ms"),
    ("max-connections", "0", "expected 1 to 4294967295"),
    ("max-in-flight", "0", "expected 1 to 1000000"),
    ("max-open-streams", "0", "expected 1 to 1000000"),
    ("max-streams", "many", "expected 1 to 4294967295"),
    ("migrate", "maybe", "expected true or false"),
    ("otlp-endpoint", "https://collector:4317", "expected http://HOST:PORT"),
    ("otlp-sample", "1.5", "expected a number from 0 to 1"),
    ("postgres-acquire-timeout", "0s", DURATION),
    ("postgres-connections", "1001", "expected 1 to 1000"),
    ("postgres-statement-timeout", "0s", DURATION),
    ("postgres-url", "mysql://ada:hunter2@db", "expected postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE"),
    ("preface-timeout", "0s", DURATION),
    ("redis-connect-timeout", "0s", DURATION),
    ("redis-lanes", "65", "expected 1 to 64"),
    ("redis-prefix", "{tidings}", "expected 1 to 64 of [A-Za-z0-9._-]"),
    ("redis-timeout", "0s", DURATION),
    ("redis-url", "memcached://hunter2@cache", "expected redis://[USER:PASSWORD@]HOST[:PORT][/DB]"),
    ("send-timeout", "0s", DURATION),
    ("tls-cert", MISSING, NO_FILE),
    ("tls-client-ca", MISSING, NO_FILE),
    ("tls-client-san", "two words", "expected a DNS name, a URI like spiffe://chat/gateway, or an IP address"),
    ("tls-key", MISSING, NO_FILE),
    ("tls-timeout", "0s", DURATION),
    ("token-file", MISSING, NO_FILE),
    ("user-absent-ttl", "0s", DURATION),
    ("user-cache-ttl", "0s", DURATION),
    ("user-compare-interval", "0s", DURATION),
    ("user-fill-wait", "0s", DURATION),
    ("user-heartbeat", "0s", DURATION),
    ("user-lease-ttl", "0s", DURATION),
    ("user-near-bytes", "64MiB", "expected a number of bytes"),
    ("user-near-ttl", "0s", DURATION),
    ("user-relay-gather", "10", DURATION_OR_ZERO),
    ("user-relay-tick", "0s", DURATION),
    ("user-soft-ttl", "0s", DURATION),
    ("user-watched-ids", "0", "expected 1 to 100000000"),
];

const DURATION: &str = "expected a duration like 800ms or 5s";
const DURATION_OR_ZERO: &str = "expected a duration like 0s, 800ms or 5s";

/// A file that is not there.
const MISSING: &str = "/missing";
const NO_FILE: &str = "expected a file that can be read: No such file or directory (os error 2)";

/// What some flags need beside them, to be looked at.
fn beside(flag: &str, dir: &Path) -> Vec<(&'static str, OsString)> {
    let (cert, key) = (dir.join("cert.pem").into_os_string(), dir.join("key.pem").into_os_string());
    let broadcast = ("TIDINGS_BROADCAST_ADDR", OsString::from("https://127.0.0.1:1"));
    let ca = ("TIDINGS_BROADCAST_CA", cert.clone());
    match flag {
        "tls-cert" => vec![("TIDINGS_TLS_KEY", key)],
        "tls-key" => vec![("TIDINGS_TLS_CERT", cert)],
        "tls-client-ca" => vec![("TIDINGS_TLS_CERT", cert), ("TIDINGS_TLS_KEY", key)],
        "broadcast-ca" => vec![broadcast],
        "broadcast-cert" => vec![broadcast, ca, ("TIDINGS_BROADCAST_KEY", key)],
        "broadcast-key" => vec![broadcast, ca, ("TIDINGS_BROADCAST_CERT", cert)],
        "broadcast-token-file" => vec![broadcast, ca],
        _ => Vec::new(),
    }
}

/// A wrong setting ends the process within a second; this machine may be busy with other tests.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Servers that nobody answers for: a service that went on would be heard of much later, and otherwise.
const POSTGRES: &str = "postgres://nobody@127.0.0.1:1/nothing";
const REDIS: &str = "redis://127.0.0.1:1";

/// The services and their settings.
fn settings() -> Vec<(String, Vec<Arg>)> {
    let grammar = tidings::grammar();
    let services = grammar.find_subcommand("serve").unwrap().get_subcommands();
    let settings =
        |service: &clap::Command| service.get_arguments().filter(|arg| arg.get_env().is_some()).cloned().collect();
    services.map(|service| (service.get_name().to_owned(), settings(service))).collect()
}

/// `tidings serve`, right but for what a test adds, without anything from this process' environment.
fn serve(service: &str, postgres: bool) -> Command {
    let mut command = Command::new(TIDINGS);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDINGS_")) {
        command.env_remove(name);
    }
    command.args(["serve", service]).env("TIDINGS_REDIS_URL", REDIS).env("TIDINGS_LOG", "error");
    if postgres {
        command.env("TIDINGS_POSTGRES_URL", POSTGRES);
    }
    command
}

/// What a service says to wrong settings: lines without its name.
fn refused(command: &mut Command) -> Vec<String> {
    let begun = Instant::now();
    let output = finish(command);
    let said = stderr(&output);
    assert!(begun.elapsed() < AT_ONCE, "{command:?} took {:?}", begun.elapsed());
    assert_refused(&output, &format!("{command:?}"));
    said.lines().map(|line| line.split_once(": ").map_or(line, |(_, said)| said).to_owned()).collect()
}

fn assert_refused(output: &Output, what: &str) {
    assert_eq!(output.status.code(), Some(2), "{what}: {}", stderr(output));
    assert!(output.stdout.is_empty(), "{what}");
    assert!(!stderr(output).contains("hunter2"), "{what}: {}", stderr(output));
}

#[test]
fn each_setting_that_is_wrong_is_told_with_flag_variable_value_and_expectation() {
    // Taken: who opened a port before it looked at its settings would say that it can not.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(dir.path().join("cert.pem"), certified.cert.pem()).unwrap();
    fs::write(dir.path().join("key.pem"), certified.signing_key.serialize_pem()).unwrap();
    for (service, settings) in settings() {
        let needs_postgres = settings.iter().any(|arg| arg.get_long() == Some("postgres-url"));
        for arg in settings {
            let (flag, variable) = (arg.get_long().unwrap(), arg.get_env().unwrap().to_str().unwrap());
            let wrong = WRONG.iter().find(|(name, ..)| *name == flag);
            let (_, value, expected) =
                wrong.unwrap_or_else(|| panic!("a wrong value for --{flag} is missing in WRONG"));
            let shown = if arg.is_hide_env_values_set() { "(not shown)".to_owned() } else { format!("'{value}'") };
            let command = || {
                let mut command = serve(&service, needs_postgres);
                command.env("TIDINGS_LISTEN", &listen).envs(beside(flag, dir.path()));
                command
            };

            let by_variable = refused(command().env(variable, value));
            assert_eq!(by_variable, [format!("--{flag} ({variable}): {shown}: {expected}")], "{service}");

            let expected = if arg.get_action().takes_values() { expected } else { "expected no value" };
            let by_flag = refused(command().arg(format!("--{flag}={value}")));
            assert_eq!(by_flag, [format!("--{flag} ({variable}): {shown}: {expected}")], "{service}");
        }
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let mut command = serve("user", false);
    command.env("TIDINGS_DRAIN", "0s").env("TIDINGS_REDIS_URL", "hunter2").args([
        "--max-streams",
        "0",
        "--redis-lanes=x",
    ]);

    let mut lines = refused(&mut command);

    lines.sort();
    assert_eq!(
        lines,
        [
            "--drain (TIDINGS_DRAIN): '0s': expected a duration like 800ms or 5s",
            "--max-streams (TIDINGS_MAX_STREAMS): '0': expected 1 to 4294967295",
            "--postgres-url (TIDINGS_POSTGRES_URL): not set: expected postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE",
            "--redis-lanes (TIDINGS_REDIS_LANES): 'x': expected 1 to 64",
            "--redis-url (TIDINGS_REDIS_URL): (not shown): expected redis://[USER:PASSWORD@]HOST[:PORT][/DB]",
        ]
    );
}

#[test]
fn settings_that_contradict_each_other_are_told() {
    let line =
        |service: &str, arguments: &[&str]| refused(serve(service, service != "broadcast").args(arguments)).join("\n");

    let fill = line("user", &["--user-fill-wait=4s", "--user-lease-ttl=3s"]);
    let soft = line("user", &["--user-soft-ttl=2h", "--user-cache-ttl=1h"]);
    let ring = line("broadcast", &["--broadcast-ring-bytes=2000", "--broadcast-rings-bytes=1000"]);
    let admin = line("lock", &["--listen=127.0.0.1:7403", "--admin-listen=127.0.0.1:7403"]);

    assert!(
        fill.starts_with(
            "--user-fill-wait (TIDINGS_USER_FILL_WAIT): '4s': expected at most the 3s of --user-lease-ttl"
        ),
        "{fill}"
    );
    assert!(soft.starts_with("--user-soft-ttl (TIDINGS_USER_SOFT_TTL): '2h': expected at most the 1h"), "{soft}");
    assert!(
        ring.starts_with("--broadcast-ring-bytes (TIDINGS_BROADCAST_RING_BYTES): '2000': expected at most the 1000"),
        "{ring}"
    );
    assert!(admin.starts_with("--admin-listen (TIDINGS_ADMIN_LISTEN): '127.0.0.1:7403': expected another"), "{admin}");
}

#[test]
fn a_flag_that_is_unknown_without_value_or_given_twice_is_told() {
    let line = |arguments: &[&str]| refused(serve("lock", true).args(arguments)).join("\n");

    assert_eq!(line(&["--drains=5s"]), "--drains: no such flag: expected --drain, or see tidings serve lock --help");
    assert_eq!(line(&["--drain"]), format!("--drain (TIDINGS_DRAIN): no value: {DURATION}"));
    assert_eq!(line(&["--drain=1s", "--drain=2s"]), "--drain (TIDINGS_DRAIN): given twice: expected one value");
    assert_eq!(line(&["redis://hunter2@cache"]), "(not shown): no flag before it: see tidings serve lock --help");
}

#[test]
fn a_log_filter_that_is_none_is_told() {
    let lines = refused(serve("user", true).env("TIDINGS_LOG", "tidings_server=loud"));

    let expected = "TIDINGS_LOG: 'tidings_server=loud': expected a filter like info or debug,tidings_server=trace";
    assert!(lines.iter().any(|line| line.contains(expected)), "{lines:?}");
}

/// `tidings serve user` with its secrets in files.
fn with_files(postgres: &Path, redis: &Path) -> Command {
    let mut command = serve("user", false);
    command.env_remove("TIDINGS_REDIS_URL");
    command.env("TIDINGS_POSTGRES_URL_FILE", postgres).env("TIDINGS_REDIS_URL_FILE", redis);
    command
}

#[test]
fn a_secret_can_be_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (postgres, redis) = (file("postgres", &format!("{POSTGRES}\n")), file("redis", &format!("  {REDIS}  \n")));

    // It goes on with what the files say, and waits where nobody answers.
    let mut command = with_files(&postgres, &redis);
    let listen = format!("127.0.0.1:{}", 7401 + port_offset());
    let mut service = command
        .args(["--stop-with-stdin", "--listen", &listen])
        .env("TIDINGS_LOG", "warn")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(service.stderr.take().unwrap());
    let waits = log.lines().map(Result::unwrap).find(|line| line.contains("waiting for postgres"));
    assert!(waits.is_some_and(|line| line.contains("postgres://127.0.0.1:1/nothing")));
    drop(service.stdin.take());
    assert!(service.wait().unwrap().success());

    let lines = refused(&mut with_files(&file("wrong", "mysql://hunter2"), &dir.path().join("missing")));
    let missing = dir.path().join("missing");
    assert_eq!(lines, [
        format!("--redis-url (TIDINGS_REDIS_URL_FILE): '{}': can not be read: No such file or directory (os error 2)", missing.display()),
        "--postgres-url (TIDINGS_POSTGRES_URL_FILE): (not shown): expected postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE".to_owned(),
    ]);

    let lines = refused(with_files(&postgres, &redis).env("TIDINGS_REDIS_URL", REDIS));
    assert_eq!(lines, ["--redis-url (TIDINGS_REDIS_URL): given with TIDINGS_REDIS_URL_FILE: expected one of them"]);
    let lines = refused(with_files(&postgres, &redis).args(["--redis-url", REDIS]));
    assert_eq!(lines, ["--redis-url (TIDINGS_REDIS_URL): given with TIDINGS_REDIS_URL_FILE: expected one of them"]);
}

#[test]
fn a_variable_that_is_not_text_is_told() {
    let bytes = OsStr::from_bytes(b"\xff");

    let lines = refused(serve("user", true).env("TIDINGS_DRAIN", bytes));

    assert_eq!(lines, [format!("--drain (TIDINGS_DRAIN): not UTF-8: {DURATION}")]);
}
