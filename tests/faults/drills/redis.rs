//! A Redis that is away, that forgets, that refuses: user and history do their work all the same, locks and channels go on
//! when it is back.

use std::time::Duration;

use redis::{Client, Connection, cmd};
use tokio::time::sleep;

use super::Recovery;
use crate::drill::Drill;
use crate::stage::Stage;

/// The quarantine of locks is as long as the longest lease, here a second, and its grace.
const RECOVERY: Recovery = [
    ("user", None),
    ("history", None),
    ("lock", Some(Duration::from_secs(4))),
    ("broadcast", Some(Duration::from_secs(2))),
];

fn connection(stage: &Stage) -> Connection {
    Client::open(stage.stack.redis().url()).unwrap().get_connection().unwrap()
}

#[test]
fn a_redis_that_stands_still_costs_nothing_that_was_acknowledged() {
    Drill::new("Redis SIGSTOP", RECOVERY).run(async |stage, times| {
        stage.stack.redis().pause();
        sleep(times.either(Duration::from_secs(30), Duration::from_secs(3))).await;
        stage.stack.redis().resume();
    });
}

#[test]
fn a_redis_that_is_killed_costs_nothing_that_was_acknowledged() {
    Drill::new("Redis kill -9", RECOVERY).run(async |stage, times| {
        for _ in 0..times.either(5, 1) {
            stage.stack.redis().kill().await;
            sleep(Duration::from_secs(1)).await;
            stage.stack.redis().start().await.unwrap();
        }
    });
}

#[test]
fn a_redis_that_forgets_everything_costs_nothing_that_was_acknowledged() {
    Drill::new("Redis FLUSHALL", RECOVERY).run(async |stage, times| {
        let mut redis = connection(stage);
        for _ in 0..times.either(10, 2) {
            cmd("FLUSHALL").exec(&mut redis).unwrap();
            sleep(Duration::from_millis(500)).await;
        }
    });
}

#[test]
fn a_redis_that_cuts_connections_all_the_time_costs_nothing_that_was_acknowledged() {
    Drill::new("Redis CLIENT KILL every 100 ms", RECOVERY).run(async |stage, times| {
        let mut redis = connection(stage);
        for _ in 0..times.either(100, 20) {
            for kind in ["normal", "pubsub"] {
                cmd("CLIENT").arg("KILL").arg("TYPE").arg(kind).arg("SKIPME").arg("yes").exec(&mut redis).unwrap();
            }
            sleep(Duration::from_millis(100)).await;
        }
    });
}

#[test]
fn a_redis_that_is_out_of_clients_costs_nothing_that_was_acknowledged() {
    Drill::new("Redis out of clients", RECOVERY).run(async |stage, times| {
        let mut redis = connection(stage);
        cmd("CONFIG").arg("SET").arg("maxclients").arg(1).exec(&mut redis).unwrap();
        for kind in ["normal", "pubsub"] {
            cmd("CLIENT").arg("KILL").arg("TYPE").arg(kind).arg("SKIPME").arg("yes").exec(&mut redis).unwrap();
        }
        sleep(times.either(Duration::from_secs(10), Duration::from_secs(2))).await;
        cmd("CONFIG").arg("SET").arg("maxclients").arg(10_000).exec(&mut redis).unwrap();
    });
}

#[test]
fn a_redis_that_is_out_of_memory_costs_nothing_that_was_acknowledged() {
    Drill::new("Redis out of memory", RECOVERY).run(async |stage, times| {
        let mut redis = connection(stage);
        cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).exec(&mut redis).unwrap();
        sleep(times.either(Duration::from_secs(10), Duration::from_secs(2))).await;
        cmd("CONFIG").arg("SET").arg("maxmemory").arg(0).exec(&mut redis).unwrap();
    });
}
