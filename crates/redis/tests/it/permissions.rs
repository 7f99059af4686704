//! Users without some permission: it is named, and once it is granted everything works without a
//! restart.

use redis::Connection;
use tidings_devstack::RedisServer;
use tidings_devstack::testing::{eventually, own_redis};
use tidings_redis::{Args, Error, Permissions, Redis, Role, Script, Subscriber, cmd};

use super::support::{LONG_TIMEOUT, args, connected_lane};

const PERMISSIONS: Permissions = Permissions {
    required: &["get K", "hset K field value", "publish C message", "subscribe C", "unsubscribe"],
    optional: Some(("client tracking on", "the local cache")),
};

/// A server with the user `app`, and settings with that user.
struct RestrictedServer {
    server: RedisServer,
    operator: Connection,
    args: Args,
}

impl RestrictedServer {
    /// Starts with a user that has these rules besides all commands, keys and channels.
    async fn start(rules: &[&str]) -> Self {
        let server = own_redis().await;
        let operator = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
        let url = format!("redis://app:secret@127.0.0.1:{}", server.port());
        let args = Args { redis_url: url.parse().unwrap(), ..args(&server, 1, LONG_TIMEOUT) };
        let mut restricted = Self { server, operator, args };
        restricted.set_user(&["on", ">secret", "+@all", "allkeys", "allchannels"]);
        restricted.set_user(rules);
        restricted
    }

    fn set_user(&mut self, rules: &[&str]) {
        cmd("ACL").arg("SETUSER").arg("app").arg(rules).exec(&mut self.operator).unwrap();
    }

    fn open(&self) -> Redis {
        Redis::open_with(&self.args, "test", Role::Cache, PERMISSIONS).unwrap()
    }

    /// Returns the ACL pattern of all keys or channels.
    fn pattern(&self, kind: char) -> String {
        format!("{kind}{}:test:*", self.args.redis_prefix)
    }
}

async fn expect_finding(redis: &Redis, finding: &str) {
    eventually(finding, async || redis.unusable().is_some_and(|unusable| unusable.finding() == finding)).await;
    assert!(matches!(redis.reader().await, Err(Error::Away)));
    assert!(!redis.ping().await);
}

/// The default of Redis since 7.0.
#[tokio::test]
async fn a_user_without_channels_is_not_used_until_it_has_them() {
    let mut restricted = RestrictedServer::start(&["resetchannels"]).await;
    let redis = restricted.open();
    redis.check_compatibility().await.unwrap();

    let channels = restricted.pattern('&');
    expect_finding(&redis, &format!("the ACL user app lacks +publish +subscribe {channels}")).await;
    let cure = redis.unusable().unwrap().cure().to_owned();
    assert_eq!(cure, format!("ACL SETUSER app +publish +subscribe {channels}"));

    restricted.set_user(&[&channels]);
    connected_lane(&redis).await;
    assert_eq!(redis.describe(), "breaker closed");
}

/// Also a command that only scripts run.
#[tokio::test]
async fn a_permission_that_is_lost_while_serving_is_named() {
    let mut restricted = RestrictedServer::start(&[]).await;
    let redis = restricted.open();
    connected_lane(&redis).await;

    for (lost, granted) in [
        ("-hset", "+hset"),
        ("-evalsha", "+evalsha"),
        ("-evalsha_ro", "+evalsha_ro"),
        ("-info", "+info"),
        ("-set", "+set"),
    ] {
        restricted.set_user(&[lost]);
        expect_finding(&redis, &format!("the ACL user app lacks {granted}")).await;
        restricted.set_user(&[granted]);
        connected_lane(&redis).await;
    }
}

#[tokio::test]
async fn a_user_of_other_keys_is_told_the_pattern() {
    let mut restricted = RestrictedServer::start(&["resetkeys", "~other:*"]).await;
    let redis = restricted.open();
    let keys = restricted.pattern('~');

    expect_finding(&redis, &format!("the ACL user app lacks {keys}")).await;

    restricted.set_user(&[&keys]);
    connected_lane(&redis).await;
}

#[tokio::test]
async fn a_missing_optional_permission_turns_one_feature_off() {
    let mut restricted = RestrictedServer::start(&["-client"]).await;
    let redis = restricted.open();
    connected_lane_without_id(&redis).await;

    let remark = "breaker closed; the local cache is off: the ACL user app lacks +client|tracking: \
                  ACL SETUSER app +client|tracking";
    assert_eq!(redis.describe(), remark);

    restricted.set_user(&["+client|tracking"]);
    eventually("nothing is off", async || redis.describe() == "breaker closed").await;
}

/// Lanes, scripts and pub/sub.
#[tokio::test]
async fn the_listed_rules_suffice() {
    let mut restricted = RestrictedServer::start(&["-@all", "resetkeys", "resetchannels"]).await;
    let mut rules = PERMISSIONS.rules();
    rules.extend([restricted.pattern('~'), restricted.pattern('&')]);
    restricted.set_user(&rules.iter().map(String::as_str).collect::<Vec<_>>());

    let redis = restricted.open();
    let mut lane = connected_lane_without_id(&redis).await;
    let script = Script::new("redis.call('HSET', KEYS[1], 'a', 1) return redis.call('PUBLISH', ARGV[1], '')");
    let (key, channel) = (lane.key(format_args!("hash")), lane.channel(format_args!("news")));
    lane.write::<i64>(script.key(key).arg(channel)).await.assume_idempotent().unwrap();
    let subscriber = Subscriber::open(&restricted.args, "test", Role::Cache, |_, _| {}).unwrap();
    let sessions = subscriber.sessions();
    eventually("a pub/sub session starts", async || sessions.borrow().is_some()).await;
    assert!(restricted.server.running());
}

/// Waits for a lane whose user may not ask for the id of its connection.
async fn connected_lane_without_id(redis: &Redis) -> tidings_redis::Lane {
    eventually("a lane is connected", async || redis.ping().await).await;
    redis.reader().await.unwrap()
}
