//! A Redis that must not be used, found at the start.

use std::process::Command;

use redis::cmd;

use super::own_stack;
use crate::service::Service;
use crate::support::{TIDINGS, finish, stderr};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lock_and_broadcast_refuse_to_start_with_a_redis_that_may_evict_unless_that_is_allowed() {
    let stack = own_stack().await;
    let mut operator = redis::Client::open(stack.redis().url()).unwrap().get_connection().unwrap();
    for (name, value) in [("maxmemory", "1gb"), ("maxmemory-policy", "allkeys-lru")] {
        cmd("CONFIG").arg("SET").arg(name).arg(value).exec(&mut operator).unwrap();
    }
    stack.postgres().create_database("lock").await.unwrap();

    for service in ["lock", "broadcast"] {
        let mut command = Command::new(TIDINGS);
        command.args(["serve", service, "--listen", "127.0.0.1:0"]).env("TIDINGS_LOG", "error");
        command.env("TIDINGS_REDIS_URL", stack.redis().url());
        if service == "lock" {
            command.env("TIDINGS_MIGRATE", "true").env("TIDINGS_POSTGRES_URL", stack.postgres().url("lock"));
        }
        let refused = finish(&mut command);
        assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
        let said = stderr(&refused);
        let last = said.lines().last().unwrap();
        assert!(last.contains("found maxmemory-policy allkeys-lru") && last.contains("need noeviction"), "{said}");

        Service::on(stack, service, &["--allow-eviction"], &[]).await.assert_is_well();
    }
    for service in ["user", "history"] {
        Service::on(stack, service, &[], &[]).await.assert_is_well();
    }
}
