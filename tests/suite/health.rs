//! Health while a dependency is unavailable: the entry of the service changes, readiness does not.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{TidingsUp, eventually, print_figures};

/// Time until health reports an unavailable dependency (promised: 3 s); 2 s more on a loaded
/// machine.
const DETECTION: Duration = Duration::from_secs(3 + 2);
/// Time until health reports that the dependency is back (promised: 2 s); 2 s more likewise.
const RECOVERY: Duration = Duration::from_secs(2 + 2);

/// Waits until `/readyz` of a service has a line; returns the time it took.
fn wait_for_entry(tidings: &TidingsUp, service: &str, line: &str) -> Duration {
    let started = Instant::now();
    eventually(line, || tidings.readyz(service).1.lines().any(|entry| entry == line).then_some(()));
    started.elapsed()
}

/// Stops a server for a while. Meanwhile the `affected` entries are NOT_SERVING, the `unaffected`
/// ones SERVING, and all services stay ready.
fn stop_server_and_check(tidings: &TidingsUp, server: &str, affected: &[&str], unaffected: &[&str]) {
    for entry in affected.iter().chain(unaffected) {
        wait_for_entry(tidings, service_of(entry), &format!("{entry} SERVING"));
    }
    tidings.signal_all_processes(server, Signal::STOP);
    let mut detected = Duration::ZERO;
    for entry in affected {
        detected = detected.max(wait_for_entry(tidings, service_of(entry), &format!("{entry} NOT_SERVING")));
    }
    thread::sleep(Duration::from_secs(1));
    for entry in affected.iter().chain(unaffected) {
        let (code, entries) = tidings.readyz(service_of(entry));
        assert_eq!(code, 200, "{entry} stays ready: {entries}");
    }
    for entry in unaffected {
        let entries = tidings.readyz(service_of(entry)).1;
        assert!(entries.contains(&format!("{entry} SERVING")), "{server} is unavailable: {entries}");
    }
    tidings.signal_all_processes(server, Signal::CONT);
    let mut recovered = Duration::ZERO;
    for entry in affected {
        recovered = recovered.max(wait_for_entry(tidings, service_of(entry), &format!("{entry} SERVING")));
    }
    print_figures(&format!(
        "\n{server} stopped: NOT_SERVING after {detected:.1?}, SERVING {recovered:.1?} after it resumed\n"
    ));
    assert!(detected < DETECTION && recovered < RECOVERY, "{detected:?}, {recovered:?}");
}

fn service_of(entry: &str) -> &str {
    entry.split('.').nth(1).unwrap()
}

#[test]
fn a_service_entry_follows_its_dependency_but_readiness_stays() {
    let dir = tempfile::tempdir().unwrap();
    let tidings = TidingsUp::start(dir.path());
    let user = "tidings.user.v1.UserService";
    let history = ["tidings.history.v1.HistoryService", "tidings.history.v1.ConversationService"];
    let (lock, broadcast) = ("tidings.lock.v1.LockService", "tidings.broadcast.v1.BroadcastService");

    stop_server_and_check(&tidings, "postgres", &[user, history[0], history[1]], &[lock, broadcast]);
    stop_server_and_check(&tidings, "redis-server", &[lock, broadcast], &[user, history[0], history[1]]);
}
