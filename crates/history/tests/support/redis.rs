//! A hand in Redis: looks at what the service keeps there, and takes it away.

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, cmd};
use tidings_devstack::Redis;

/// One connection to the Redis of a service, which knows the names of its keys.
pub(crate) struct Tampering {
    connection: MultiplexedConnection,
    prefix: String,
}

impl Tampering {
    pub(crate) async fn connect(redis: &Redis, prefix: &str) -> Self {
        let client = Client::open(redis.url()).unwrap();
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
        let info: String = cmd("INFO").arg("replication").query_async(&mut connection).await.unwrap();
        let reign = info.lines().find_map(|line| line.strip_prefix("master_replid:")).unwrap();
        let prefix = format!("{prefix}:history:{}", &reign[..10]);
        Self { connection, prefix }
    }

    /// The key of a tail.
    pub(crate) fn tail_key(&self, conversation: &str) -> String {
        format!("{}:t:{{{conversation}}}", self.prefix)
    }

    /// The key of the lease of a loader.
    pub(crate) fn lease_key(&self, conversation: &str) -> String {
        format!("{}:z:{{{conversation}}}", self.prefix)
    }

    /// The numbers in a tail, as its elements say.
    pub(crate) async fn tail(&self, conversation: &str) -> Vec<i64> {
        let elements = self.elements(conversation).await;
        elements.iter().map(|element| i64::from_be_bytes(element[..8].try_into().unwrap())).collect()
    }

    /// The elements of a tail.
    pub(crate) async fn elements(&self, conversation: &str) -> Vec<Vec<u8>> {
        self.run(cmd("LRANGE").arg(self.tail_key(conversation)).arg(0).arg(-1)).await
    }

    /// Takes a tail away.
    pub(crate) async fn evict(&self, conversation: &str) {
        self.run::<()>(cmd("DEL").arg(self.tail_key(conversation))).await;
    }

    /// Takes everything away.
    pub(crate) async fn flush_all(&self) {
        self.run::<()>(&cmd("FLUSHALL")).await;
    }

    /// Any command.
    pub(crate) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> T {
        command.query_async(&mut self.connection.clone()).await.unwrap()
    }
}
