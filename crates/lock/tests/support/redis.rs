//! Direct access to the service's keys in Redis: reads, deletes, and moves the logical clock.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use redis::cmd;
use tidings_devstack::RedisServer;
use tidings_devstack::testing::RedisInspector;
use tidings_lock::leases::KEYS;

/// A connection to the Redis of a service, with the names of its keys.
#[derive(Clone)]
pub(crate) struct LockRedis {
    inspector: RedisInspector,
    prefix: String,
}

impl LockRedis {
    pub(crate) async fn connect(redis: &RedisServer, prefix: &str) -> Self {
        Self { inspector: RedisInspector::connect(redis).await, prefix: format!("{prefix}:lock:{{lk00}}") }
    }

    /// Returns the full name of a key.
    pub(crate) fn key(&self, name: &str) -> String {
        assert!(KEYS.contains(&name), "{name}");
        format!("{}:{name}", self.prefix)
    }

    /// Reads a number from `meta`.
    pub(crate) async fn meta(&self, field: &str) -> i64 {
        self.run(cmd("HGET").arg(self.key("meta")).arg(field)).await
    }

    /// Sets a number in `meta`.
    pub(crate) async fn set_meta(&self, field: &str, value: i64) {
        self.run::<()>(cmd("HSET").arg(self.key("meta")).arg(field).arg(value)).await;
    }

    /// Advances the logical clock by `time`.
    pub(crate) async fn advance(&self, time: Duration) {
        let millis = i64::try_from(time.as_millis()).unwrap();
        self.run::<()>(cmd("HINCRBY").arg(self.key("meta")).arg("clock").arg(millis)).await;
    }

    /// Deletes all keys of the service, like a Redis that lost its data.
    pub(crate) async fn lose_state(&self) {
        self.run::<()>(cmd("DEL").arg(KEYS.map(|name| self.key(name)).as_slice())).await;
    }

    /// Returns all entries except clocks and heartbeats, which change by themselves.
    pub(crate) async fn snapshot(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for name in KEYS.iter().filter(|name| **name != "instances") {
            let key = self.key(name);
            let kind: String = self.run(cmd("TYPE").arg(&key)).await;
            match kind.as_str() {
                "hash" => {
                    let fields: BTreeMap<Vec<u8>, Vec<u8>> = self.run(cmd("HGETALL").arg(&key)).await;
                    let lasting = fields.into_iter().filter(|(field, _)| field != b"clock" && field != b"last");
                    all.insert((*name).to_owned(), format!("{:?}", lasting.collect::<Vec<_>>()));
                }
                "zset" => {
                    let members: Vec<Vec<u8>> = self.run(cmd("ZRANGE").arg(&key).arg(0).arg(-1)).await;
                    all.insert((*name).to_owned(), format!("{members:?}"));
                }
                kind => assert_eq!(kind, "none"),
            }
        }
        all
    }

    /// Returns the number of entries of a key.
    pub(crate) async fn size(&self, name: &str) -> usize {
        let key = self.key(name);
        let kind: String = self.run(cmd("TYPE").arg(&key)).await;
        match kind.as_str() {
            "hash" => self.run(cmd("HLEN").arg(key)).await,
            "zset" => self.run(cmd("ZCARD").arg(key)).await,
            kind => {
                assert_eq!(kind, "none");
                0
            }
        }
    }
}

impl Deref for LockRedis {
    type Target = RedisInspector;

    fn deref(&self) -> &RedisInspector {
        &self.inspector
    }
}
