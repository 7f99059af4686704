//! A direct connection to Redis, which inspects and deletes the keys of the service.

use std::ops::Deref;

use redis::cmd;
use tidings_devstack::RedisServer;
use tidings_devstack::testing::RedisInspector;

/// A connection to the Redis of a history service that knows the names of its keys.
pub(crate) struct HistoryRedis {
    inspector: RedisInspector,
    prefix: String,
}

impl HistoryRedis {
    /// Connects; `source` is the incarnation of the database, or empty.
    pub(crate) async fn connect(redis: &RedisServer, prefix: &str, source: &str) -> Self {
        let inspector = RedisInspector::connect(redis).await;
        let info: String = inspector.run(cmd("INFO").arg("replication")).await;
        let incarnation = info.lines().find_map(|line| line.strip_prefix("master_replid:")).unwrap();
        let source = if source.is_empty() { String::new() } else { format!(":{source}") };
        let prefix = format!("{prefix}:history:{}{source}", &incarnation[..10]);
        Self { inspector, prefix }
    }

    /// Returns the key of a tail.
    pub(crate) fn tail_key(&self, conversation: &str) -> String {
        format!("{}:t:{{{conversation}}}", self.prefix)
    }

    /// Returns the key of a load lease.
    pub(crate) fn lease_key(&self, conversation: &str) -> String {
        format!("{}:z:{{{conversation}}}", self.prefix)
    }

    /// Returns the seqs in a tail, as its elements record them.
    pub(crate) async fn tail(&self, conversation: &str) -> Vec<i64> {
        let elements = self.elements(conversation).await;
        elements.iter().map(|element| i64::from_be_bytes(element[..8].try_into().unwrap())).collect()
    }

    /// Returns the encoded elements of a tail.
    pub(crate) async fn elements(&self, conversation: &str) -> Vec<Vec<u8>> {
        self.run(cmd("LRANGE").arg(self.tail_key(conversation)).arg(0).arg(-1)).await
    }

    /// Deletes a tail.
    pub(crate) async fn evict(&self, conversation: &str) {
        self.run::<()>(cmd("DEL").arg(self.tail_key(conversation))).await;
    }
}

impl Deref for HistoryRedis {
    type Target = RedisInspector;

    fn deref(&self) -> &RedisInspector {
        &self.inspector
    }
}
