//! Instances that are killed or restarted.

use std::time::Duration;

use rustix::process::Signal;

use super::RecoveryTimes;
use crate::drill::Drill;

/// Retry time of the callers: longer than an instance takes to restart.
const RETRY_FOR: Duration = Duration::from_secs(10);
const NONE: RecoveryTimes = [("user", None), ("history", None), ("lock", None), ("broadcast", None)];

#[test]
fn no_retried_call_fails_when_one_of_two_instances_is_killed() {
    let drill = Drill { retry_for: Some(RETRY_FOR), ..Drill::new("kill -9 of one of two instances", NONE) };
    drill.run(async |installation, times| {
        for _ in 0..times.either(5, 1) {
            for service in installation.instances().step_by(2) {
                service.restart(Signal::KILL).await;
            }
        }
    });
}

#[test]
fn no_retried_call_fails_when_instances_restart_in_turn() {
    let drill = Drill { retry_for: Some(RETRY_FOR), ..Drill::new("SIGTERM, one instance after another", NONE) };
    drill.run(async |installation, times| {
        for _ in 0..times.either(3, 1) {
            for service in installation.instances() {
                service.restart(Signal::TERM).await;
            }
        }
    });
}
