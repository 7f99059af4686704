//! Redis unavailable, flushed or refusing: user and history are not affected; lock and broadcast
//! recover with it.

use std::time::Duration;

use redis::{Client, Connection, cmd};
use tokio::time::sleep;

use super::RecoveryTimes;
use crate::drill::Drill;
use crate::installation::DrillInstallation;

/// Lock recovers after the quarantine: the longest lease, here 1 s, and its grace.
const RECOVERY: RecoveryTimes = [
    ("user", None),
    ("history", None),
    ("lock", Some(Duration::from_secs(4))),
    ("broadcast", Some(Duration::from_secs(2))),
];

fn connect(installation: &DrillInstallation) -> Connection {
    Client::open(installation.stack.redis().url()).unwrap().get_connection().unwrap()
}

#[test]
fn nothing_acknowledged_is_lost_while_redis_is_paused() {
    Drill::new("Redis SIGSTOP", RECOVERY).run(async |installation, times| {
        installation.stack.redis().pause();
        sleep(times.either(Duration::from_secs(30), Duration::from_secs(3))).await;
        installation.stack.redis().resume();
    });
}

#[test]
fn nothing_acknowledged_is_lost_when_redis_is_killed() {
    Drill::new("Redis kill -9", RECOVERY).run(async |installation, times| {
        for _ in 0..times.either(5, 1) {
            installation.stack.redis().kill().await;
            sleep(Duration::from_secs(1)).await;
            installation.stack.redis().start().await.unwrap();
        }
    });
}

#[test]
fn nothing_acknowledged_is_lost_when_redis_is_flushed() {
    Drill::new("Redis FLUSHALL", RECOVERY).run(async |installation, times| {
        let mut redis = connect(installation);
        for _ in 0..times.either(10, 2) {
            cmd("FLUSHALL").exec(&mut redis).unwrap();
            sleep(Duration::from_millis(500)).await;
        }
    });
}

#[test]
fn nothing_acknowledged_is_lost_when_redis_drops_connections() {
    Drill::new("Redis CLIENT KILL every 100 ms", RECOVERY).run(async |installation, times| {
        let mut redis = connect(installation);
        for _ in 0..times.either(100, 20) {
            for kind in ["normal", "pubsub"] {
                cmd("CLIENT").arg("KILL").arg("TYPE").arg(kind).arg("SKIPME").arg("yes").exec(&mut redis).unwrap();
            }
            sleep(Duration::from_millis(100)).await;
        }
    });
}

#[test]
fn nothing_acknowledged_is_lost_while_redis_refuses_clients() {
    Drill::new("Redis out of clients", RECOVERY).run(async |installation, times| {
        let mut redis = connect(installation);
        cmd("CONFIG").arg("SET").arg("maxclients").arg(1).exec(&mut redis).unwrap();
        for kind in ["normal", "pubsub"] {
            cmd("CLIENT").arg("KILL").arg("TYPE").arg(kind).arg("SKIPME").arg("yes").exec(&mut redis).unwrap();
        }
        sleep(times.either(Duration::from_secs(10), Duration::from_secs(2))).await;
        cmd("CONFIG").arg("SET").arg("maxclients").arg(10_000).exec(&mut redis).unwrap();
    });
}

#[test]
fn nothing_acknowledged_is_lost_while_redis_is_out_of_memory() {
    Drill::new("Redis out of memory", RECOVERY).run(async |installation, times| {
        let mut redis = connect(installation);
        cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).exec(&mut redis).unwrap();
        sleep(times.either(Duration::from_secs(10), Duration::from_secs(2))).await;
        cmd("CONFIG").arg("SET").arg("maxmemory").arg(0).exec(&mut redis).unwrap();
    });
}
