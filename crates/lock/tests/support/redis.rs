//! A hand in Redis: looks at what the service keeps there, takes it away, and moves the clock.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, cmd};
use tidings_devstack::Redis;
use tidings_lock::leases::KEYS;

/// One connection to the Redis of a service, which knows the names of its keys.
#[derive(Clone)]
pub(crate) struct Tampering {
    connection: MultiplexedConnection,
    prefix: String,
}

impl Tampering {
    pub(crate) async fn connect(redis: &Redis, prefix: &str) -> Self {
        let client = Client::open(redis.url()).unwrap();
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let connection = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
        Self { connection, prefix: format!("{prefix}:lock:{{lk00}}") }
    }

    /// One of the keys of the service.
    pub(crate) fn key(&self, name: &str) -> String {
        assert!(KEYS.contains(&name), "{name}");
        format!("{}:{name}", self.prefix)
    }

    /// A number out of `meta`.
    pub(crate) async fn meta(&self, field: &str) -> i64 {
        self.run(cmd("HGET").arg(self.key("meta")).arg(field)).await
    }

    /// Sets a number in `meta`.
    pub(crate) async fn set_meta(&self, field: &str, value: i64) {
        self.run::<()>(cmd("HSET").arg(self.key("meta")).arg(field).arg(value)).await;
    }

    /// Moves the logical clock forward, as if so much time had passed.
    pub(crate) async fn advance(&self, time: Duration) {
        let millis = i64::try_from(time.as_millis()).unwrap();
        self.run::<()>(cmd("HINCRBY").arg(self.key("meta")).arg("clock").arg(millis)).await;
    }

    /// Takes away all that the service has, as Redis does when it loses its data.
    pub(crate) async fn lose_everything(&self) {
        self.run::<()>(cmd("DEL").arg(KEYS.map(|name| self.key(name)).as_slice())).await;
    }

    /// Everything that the service keeps, but for what goes on by itself: clocks, and which instances live.
    pub(crate) async fn everything(&self) -> BTreeMap<String, String> {
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

    /// How much is in a key.
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

    /// Any command.
    pub(crate) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> T {
        command.query_async(&mut self.connection.clone()).await.unwrap()
    }
}
