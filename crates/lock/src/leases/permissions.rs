//! Permissions that the scripts need.

use tidings_redis::Permissions;

/// Commands of the scripts and of notifications.
pub const PERMISSIONS: Permissions = Permissions {
    required: &[
        "del K",
        "hdel K field",
        "hget K field",
        "hgetall K",
        "hincrby K field 1",
        "hmget K field",
        "hset K field value",
        "publish C message",
        "subscribe C",
        "time",
        "unsubscribe",
        "zadd K 1 member",
        "zcard K",
        "zlexcount K - +",
        "zpopmin K",
        "zrangebylex K - +",
        "zrangebyscore K 0 1",
        "zrem K member",
    ],
    optional: None,
};
