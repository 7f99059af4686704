//! The incarnation of a Redis server.

use std::fmt;
use std::sync::Arc;

use redis::{RedisWrite, ToRedisArgs, ToSingleRedisArg};

use crate::compatibility::field;

/// Characters of `master_replid` that identify an incarnation: 40 bits of a random id.
const LENGTH: usize = 10;

/// The time in which one Redis primary continues without losing writes.
///
/// It changes when the server restarts, with or without its data, when it is promoted, and when its
/// first replica is attached. Its value is the beginning of Redis' `master_replid`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incarnation(Arc<str>);

impl Incarnation {
    /// Extracts the incarnation from the output of INFO (replication).
    pub(crate) fn from_info(info: &str) -> Result<Self, String> {
        let id = field(info, "master_replid").and_then(|id| id.get(..LENGTH));
        id.map(Self::from).ok_or_else(|| "INFO contains no master_replid".to_owned())
    }
}

impl From<&str> for Incarnation {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ToRedisArgs for Incarnation {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        out.write_arg(self.0.as_bytes());
    }
}

impl ToSingleRedisArg for Incarnation {}
