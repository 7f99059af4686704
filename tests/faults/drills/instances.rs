//! Instances that end, in order and otherwise.

use std::time::Duration;

use rustix::process::Signal;

use super::Recovery;
use crate::drill::Drill;

/// Callers repeat their calls for so long, in which an instance is started again.
const PATIENCE: Duration = Duration::from_secs(10);
const NONE: Recovery = [("user", None), ("history", None), ("lock", None), ("broadcast", None)];

#[test]
fn no_call_that_is_repeated_fails_when_one_of_two_instances_is_killed() {
    let drill = Drill { patience: Some(PATIENCE), ..Drill::new("kill -9 of one of two instances", NONE) };
    drill.run(async |stage, times| {
        for _ in 0..times.either(5, 1) {
            for service in stage.all().step_by(2) {
                service.restart(Signal::KILL).await;
            }
        }
    });
}

#[test]
fn no_call_that_is_repeated_fails_when_instances_are_restarted_in_turn() {
    let drill = Drill { patience: Some(PATIENCE), ..Drill::new("SIGTERM, one after the other", NONE) };
    drill.run(async |stage, times| {
        for _ in 0..times.either(3, 1) {
            for service in stage.all() {
                service.restart(Signal::TERM).await;
            }
        }
    });
}
