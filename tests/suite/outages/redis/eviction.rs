//! Startup with a Redis that may evict keys.

use std::process::Command;

use redis::cmd;

use super::own_stack;
use crate::service::TestService;
use crate::support::{TIDINGS, output_of, stderr};

/// Both start with `--allow-eviction`. User and history, which lose only cache entries, always
/// start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lock_and_broadcast_reject_a_redis_that_may_evict_keys() {
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
        let refused = output_of(&mut command);
        assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
        let message = stderr(&refused);
        let last = message.lines().last().unwrap();
        assert!(last.contains("found maxmemory-policy allkeys-lru") && last.contains("set noeviction"), "{message}");

        TestService::start_on(stack, service, &["--allow-eviction"], &[]).await.assert_running();
    }
    for service in ["user", "history"] {
        TestService::start_on(stack, service, &[], &[]).await.assert_running();
    }
}
