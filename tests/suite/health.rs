//! What the health of a service says while what it depends on is away: two questions, two answers.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Up, eventually, say};

/// Within this long it is said that a dependency is away; with what a loaded machine adds.
const AWAY: Duration = Duration::from_secs(3 + 2);
/// Within this long it is said that it is back; likewise.
const BACK: Duration = Duration::from_secs(2 + 2);

/// Waits until an entry of a service is so, and returns how long that took.
fn until(up: &Up, service: &str, line: &str) -> Duration {
    let begin = Instant::now();
    eventually(line, || up.readyz(service).1.lines().any(|entry| entry == line).then_some(()));
    begin.elapsed()
}

/// Stops a server for a while. Meanwhile `broken` do not do their main job, the others do; all of them are ready.
fn without(up: &Up, server: &str, broken: &[&str], well: &[&str]) {
    for entry in broken.iter().chain(well) {
        until(up, service_of(entry), &format!("{entry} SERVING"));
    }
    up.signal_all_of(server, Signal::STOP);
    let mut longest = Duration::ZERO;
    for entry in broken {
        longest = longest.max(until(up, service_of(entry), &format!("{entry} NOT_SERVING")));
    }
    thread::sleep(Duration::from_secs(1));
    for entry in broken.iter().chain(well) {
        let (code, entries) = up.readyz(service_of(entry));
        assert_eq!(code, 200, "{entry} is ready all the same: {entries}");
    }
    for entry in well {
        let entries = up.readyz(service_of(entry)).1;
        assert!(entries.contains(&format!("{entry} SERVING")), "{server} is away: {entries}");
    }
    up.signal_all_of(server, Signal::CONT);
    let mut back = Duration::ZERO;
    for entry in broken {
        back = back.max(until(up, service_of(entry), &format!("{entry} SERVING")));
    }
    say(&format!("\n{server} stopped: NOT_SERVING after {longest:.1?}, SERVING {back:.1?} after it went on\n"));
    assert!(longest < AWAY && back < BACK, "{longest:?}, {back:?}");
}

fn service_of(entry: &str) -> &str {
    entry.split('.').nth(1).unwrap()
}

#[test]
fn the_entry_of_a_service_says_whether_its_main_job_works_and_readiness_stays() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path());
    let user = "tidings.user.v1.UserService";
    let history = ["tidings.history.v1.HistoryService", "tidings.history.v1.ConversationService"];
    let (lock, broadcast) = ("tidings.lock.v1.LockService", "tidings.broadcast.v1.BroadcastService");

    without(&up, "postgres", &[user, history[0], history[1]], &[lock, broadcast]);
    without(&up, "redis-server", &[lock, broadcast], &[user, history[0], history[1]]);
}
