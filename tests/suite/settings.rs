//! Sets each setting of each service to an invalid value, as a variable and as a flag. The process
//! exits at once, before any other action, and reports the expected value.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use clap::Arg;

use crate::support::{TIDINGS, output_of, port_offset, stderr};

/// An invalid value for each flag, and the expectation in its message. Every new flag needs a row.
const INVALID: &[(&str, &str, &str)] = &[
    ("admin-listen", "localhost", "expected ADDR:PORT"),
    ("allow-eviction", "maybe", "expected true or false"),
    ("broadcast-addr", "nowhere", "expected HOST:PORT or https://HOST:PORT, e.g. 127.0.0.1:7401"),
    ("broadcast-ca", MISSING, UNREADABLE),
    ("broadcast-cert", MISSING, UNREADABLE),
    ("broadcast-compare-interval", "0s", DURATION),
    ("broadcast-heartbeat", "often", DURATION),
    ("broadcast-history-age", "61m", "expected at most 1h"),
    ("broadcast-history-count", "1001", "expected 1 to 1000"),
    ("broadcast-key", MISSING, UNREADABLE),
    ("broadcast-linger", "0s", DURATION),
    ("broadcast-max-streams", "0", "expected 1 to 4294967295"),
    ("broadcast-patience", "5x", DURATION),
    ("broadcast-ring-bytes", "-1", "expected a number of bytes"),
    ("broadcast-ring-messages", "0", "expected 1 to 100000"),
    ("broadcast-rings-bytes", "256M", "expected a number of bytes"),
    ("broadcast-token-file", MISSING, UNREADABLE),
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
    ("postgres-connect-timeout", "5", DURATION),
    ("postgres-connections", "1001", "expected 1 to 1000"),
    ("postgres-pooler", "statement", "expected none or session or transaction"),
    ("postgres-statement-timeout", "0s", DURATION),
    ("postgres-url", "mysql://ada:hunter2@db", "expected postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE"),
    ("preface-timeout", "0s", DURATION),
    ("redis-ca", MISSING, UNREADABLE),
    ("redis-connect-timeout", "0s", DURATION),
    ("redis-lanes", "65", "expected 1 to 64"),
    ("redis-prefix", "{tidings}", "expected 1 to 64 of [A-Za-z0-9._-]"),
    ("redis-timeout", "0s", DURATION),
    ("redis-url", "memcached://hunter2@cache", "expected redis://[USER:PASSWORD@]HOST[:PORT][/DB]"),
    ("send-timeout", "0s", DURATION),
    ("tls-cert", MISSING, UNREADABLE),
    ("tls-client-ca", MISSING, UNREADABLE),
    ("tls-client-san", "two words", "expected a DNS name, a URI like spiffe://chat/gateway, or an IP address"),
    ("tls-key", MISSING, UNREADABLE),
    ("tls-timeout", "0s", DURATION),
    ("token-file", MISSING, UNREADABLE),
    ("user-absent-ttl", "0s", DURATION),
    ("user-cache-ttl", "0s", DURATION),
    ("user-compare-interval", "0s", DURATION),
    ("user-fill-wait", "0s", DURATION),
    ("user-heartbeat", "0s", DURATION),
    ("user-lease-ttl", "0s", DURATION),
    ("user-local-cache-bytes", "64MiB", "expected a number of bytes"),
    ("user-local-cache-ttl", "0s", DURATION),
    ("user-relay-gather", "10", DURATION_OR_ZERO),
    ("user-relay-tick", "0s", DURATION),
    ("user-soft-ttl", "0s", DURATION),
    ("user-watched-ids", "0", "expected 1 to 100000000"),
];

const DURATION: &str = "expected a duration like 800ms or 5s";
const DURATION_OR_ZERO: &str = "expected a duration like 0s, 800ms or 5s";

/// Path of a missing file.
const MISSING: &str = "/missing";
const UNREADABLE: &str = "expected a file that can be read: No such file or directory (os error 2)";

/// Returns the variables without which a flag is not validated.
fn required_with(flag: &str, dir: &Path) -> Vec<(&'static str, OsString)> {
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

/// Time until the process exits (promised: 1 s); the rest is for a machine busy with other tests.
const EXIT_WITHIN: Duration = Duration::from_secs(5);

/// Postgres URL that refuses connections: a service that started anyway would fail later and
/// differently.
const POSTGRES: &str = "postgres://nobody@127.0.0.1:1/nothing";
/// Redis URL that refuses connections.
const REDIS: &str = "redis://127.0.0.1:1";

/// Returns the services with their settings.
fn settings() -> Vec<(String, Vec<Arg>)> {
    let grammar = tidings::grammar();
    let services = grammar.find_subcommand("serve").unwrap().get_subcommands();
    let settings = |service: &clap::Command| {
        service.get_arguments().filter(|arg| arg.get_env().is_some() && !arg.is_hide_set()).cloned().collect()
    };
    services.map(|service| (service.get_name().to_owned(), settings(service))).collect()
}

/// Returns a valid `tidings serve` without `TIDINGS_*` variables of this process.
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

/// Runs a command with invalid settings; returns the lines of its message without the program's
/// name.
fn error_lines_of(command: &mut Command) -> Vec<String> {
    let started = Instant::now();
    let output = output_of(command);
    let message = stderr(&output);
    assert!(started.elapsed() < EXIT_WITHIN, "{command:?} took {:?}", started.elapsed());
    assert_refused(&output, &format!("{command:?}"));
    message.lines().map(|line| line.split_once(": ").map_or(line, |(_, message)| message).to_owned()).collect()
}

fn assert_refused(output: &Output, what: &str) {
    assert_eq!(output.status.code(), Some(2), "{what}: {}", stderr(output));
    assert!(output.stdout.is_empty(), "{what}");
    assert!(!stderr(output).contains("hunter2"), "{what}: {}", stderr(output));
}

#[test]
fn each_invalid_setting_is_reported_with_flag_and_expectation() {
    // A taken port: a service that opened it before it validated its settings would report that.
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
            let invalid = INVALID.iter().find(|(name, ..)| *name == flag);
            let (_, value, expected) = invalid.unwrap_or_else(|| panic!("--{flag} has no row in INVALID"));
            let shown = if arg.is_hide_env_values_set() { "(not shown)".to_owned() } else { format!("'{value}'") };
            let command = || {
                let mut command = serve(&service, needs_postgres);
                command.env("TIDINGS_LISTEN", &listen).envs(required_with(flag, dir.path()));
                command
            };

            let from_variable = error_lines_of(command().env(variable, value));
            assert_eq!(from_variable, [format!("--{flag} ({variable}): {shown}: {expected}")], "{service}");

            let expected = if arg.get_action().takes_values() { expected } else { "expected no value" };
            let from_flag = error_lines_of(command().arg(format!("--{flag}={value}")));
            assert_eq!(from_flag, [format!("--{flag} ({variable}): {shown}: {expected}")], "{service}");
        }
    }
}

#[test]
fn an_empty_variable_is_an_unset_one() {
    for (service, settings) in settings() {
        let needs_postgres = settings.iter().any(|arg| arg.get_long() == Some("postgres-url"));
        let mut command = serve(&service, needs_postgres);
        for arg in settings {
            let variable = arg.get_env().unwrap().to_str().unwrap();
            let required = ["TIDINGS_POSTGRES_URL", "TIDINGS_REDIS_URL"].contains(&variable);
            command.env(if required { format!("{variable}_FILE") } else { variable.to_owned() }, "");
        }

        // Only the one invalid flag is reported.
        assert_eq!(error_lines_of(command.args(["--drain", "0s"])).len(), 1, "{service}");
    }
    let lines = error_lines_of(serve("user", true).env("TIDINGS_REDIS_URL", ""));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("--redis-url (TIDINGS_REDIS_URL): not set: "), "{lines:?}");
}

#[test]
fn all_invalid_settings_are_reported_at_once() {
    let mut command = serve("user", false);
    command.env("TIDINGS_DRAIN", "0s").env("TIDINGS_REDIS_URL", "hunter2").args([
        "--max-streams",
        "0",
        "--redis-lanes=x",
    ]);

    let mut lines = error_lines_of(&mut command);

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
fn contradictory_settings_are_reported() {
    let line = |service: &str, arguments: &[&str]| {
        error_lines_of(serve(service, service != "broadcast").args(arguments)).join("\n")
    };

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
fn unknown_repeated_and_valueless_flags_are_reported() {
    let line = |arguments: &[&str]| error_lines_of(serve("lock", true).args(arguments)).join("\n");

    assert_eq!(line(&["--drains=5s"]), "--drains: no such flag: expected --drain, or see tidings serve lock --help");
    assert_eq!(line(&["--drain"]), format!("--drain (TIDINGS_DRAIN): no value: {DURATION}"));
    assert_eq!(line(&["--drain=1s", "--drain=2s"]), "--drain (TIDINGS_DRAIN): given twice: expected one value");
    assert_eq!(line(&["redis://hunter2@cache"]), "(not shown): no flag before it: see tidings serve lock --help");
}

#[test]
fn an_invalid_log_filter_is_reported() {
    let lines = error_lines_of(serve("user", true).env("TIDINGS_LOG", "tidings_server=loud"));

    let expected = "TIDINGS_LOG: 'tidings_server=loud': expected a filter like info or debug,tidings_server=trace";
    assert!(lines.iter().any(|line| line.contains(expected)), "{lines:?}");
}

/// Returns `tidings serve user` with its secrets in files.
fn with_files(postgres: &Path, redis: &Path) -> Command {
    let mut command = serve("user", false);
    command.env_remove("TIDINGS_REDIS_URL");
    command.env("TIDINGS_POSTGRES_URL_FILE", postgres).env("TIDINGS_REDIS_URL_FILE", redis);
    command
}

#[test]
fn a_secret_can_be_read_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (postgres, redis) =
        (file("postgres", &format!("{POSTGRES}\n")), file("redis", &format!("\u{feff}  {REDIS}  \r\n")));

    // The service accepts both files and waits for the unreachable Postgres.
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
    let waiting = log.lines().map(Result::unwrap).find(|line| line.contains("waiting for postgres"));
    assert!(waiting.is_some_and(|line| line.contains("postgres://127.0.0.1:1/nothing")));
    drop(service.stdin.take());
    assert!(service.wait().unwrap().success());

    let lines = error_lines_of(&mut with_files(&file("wrong", "mysql://hunter2"), &dir.path().join("missing")));
    let missing = dir.path().join("missing");
    assert_eq!(lines, [
        format!("--redis-url (TIDINGS_REDIS_URL_FILE): '{}': cannot be read: No such file or directory (os error 2)", missing.display()),
        "--postgres-url (TIDINGS_POSTGRES_URL_FILE): (not shown): expected postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE".to_owned(),
    ]);

    let lines = error_lines_of(with_files(&postgres, &redis).env("TIDINGS_REDIS_URL", REDIS));
    assert_eq!(lines, ["--redis-url (TIDINGS_REDIS_URL): given with TIDINGS_REDIS_URL_FILE: expected one of them"]);
    let lines = error_lines_of(with_files(&postgres, &redis).args(["--redis-url", REDIS]));
    assert_eq!(lines, ["--redis-url (TIDINGS_REDIS_URL): given with TIDINGS_REDIS_URL_FILE: expected one of them"]);
}

#[test]
fn a_variable_that_is_not_utf8_is_reported() {
    let bytes = OsStr::from_bytes(b"\xff");

    let lines = error_lines_of(serve("user", true).env("TIDINGS_DRAIN", bytes));

    assert_eq!(lines, [format!("--drain (TIDINGS_DRAIN): not UTF-8: {DURATION}")]);
}
