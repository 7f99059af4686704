//! The services with the least permissions that the documentation lists, on one Redis per role.

use std::process::Command;

use redis::cmd;
use tidings_devstack::{Devstack, Options, RedisServer};
use tokio::runtime::Runtime;

use crate::support::{ExtraInstance, SERVICES, TIDINGS, port_offset, root, stderr};

/// Has a line `ACL SETUSER tidings-<service> on >PASSWORD ...` for each service.
const GUIDE: &str = include_str!("../../docs/environments.md");

/// Creates the user of a service as documented; returns the URL with that user.
fn create_user(server: &RedisServer, service: &str) -> String {
    let begin = format!("ACL SETUSER tidings-{service} ");
    let line = GUIDE.lines().find(|line| line.starts_with(&begin)).unwrap();
    let mut operator = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let mut words = line.split(' ');
    let mut command = cmd(words.next().unwrap());
    command.arg(words.collect::<Vec<_>>()).exec(&mut operator).unwrap();
    format!("redis://tidings-{service}:PASSWORD@127.0.0.1:{}", server.port())
}

/// Asserts that the service has keys in its Redis, and that Redis refused no command.
fn assert_used(server: &RedisServer, service: &str) {
    let mut operator = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let keys: Vec<String> = cmd("KEYS").arg(format!("tidings:{service}:*")).query(&mut operator).unwrap();
    assert!(!keys.is_empty(), "{service} does not use its redis");
    let denied: Vec<redis::Value> = cmd("ACL").arg("LOG").query(&mut operator).unwrap();
    assert!(denied.is_empty(), "{denied:?}");
}

#[test]
fn everything_works_with_the_listed_permissions() {
    let runtime = Runtime::new().unwrap();
    let stack = runtime.block_on(Devstack::start(Options::temporary())).unwrap();
    let cache = runtime.block_on(RedisServer::start_alone()).unwrap();
    let offset = port_offset();
    let broadcast = format!("127.0.0.1:{}", 7404 + offset);
    let start = |(service, port): (&'static str, u16)| {
        let server = if matches!(service, "user" | "history") { &cache } else { stack.redis() };
        let database = format!("least_{service}");
        runtime.block_on(stack.postgres().create_database(&database)).unwrap();
        let (postgres, redis) = (stack.postgres().url(&database), create_user(server, service));
        (service, server, ExtraInstance::start(service, port + offset, &postgres, &redis, &broadcast))
    };
    let instances = SERVICES.map(start);

    let mut replay = Command::new(TIDINGS);
    replay.args(["replay", "demo"]).current_dir(root());
    for (service, _, instance) in &instances {
        instance.wait_for_health("redis SERVING (breaker closed)");
        replay.env(format!("TIDINGS_{}_ADDR", service.to_uppercase()), instance.address());
    }
    let output = replay.output().unwrap();

    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
    for (service, server, _) in &instances {
        assert_used(server, service);
    }
    drop(instances);
    runtime.block_on(stack.stop());
}
