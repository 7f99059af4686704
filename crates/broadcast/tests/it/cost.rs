//! The cost of the service in Redis: script calls, counted by Redis.

use redis::cmd;
use tidings_devstack::testing::{NEVER, own_redis};

use crate::support::BroadcastCluster;
use crate::support::client::text_message;
use crate::support::redis::BroadcastRedis;

/// Returns the number of script calls since the last call of this function.
async fn scripts(redis: &BroadcastRedis) -> u64 {
    let info: String = redis.run(cmd("INFO").arg("commandstats")).await;
    redis.run::<()>(cmd("CONFIG").arg("RESETSTAT")).await;
    let calls = |name: &str| -> u64 {
        let line = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
        line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    };
    calls("evalsha") + calls("eval")
}

/// Starts two instances without the comparison with Redis, so that only requested calls count.
async fn start(server: &tidings_devstack::RedisServer) -> BroadcastCluster<'_> {
    BroadcastCluster::start_on(server, 2, |_, config| config.streams.broadcast_compare_interval = NEVER.into()).await
}

#[tokio::test]
async fn a_publish_is_one_script_call_and_subscribers_need_none() {
    let server = own_redis().await;
    let cluster = start(&server).await;
    let redis = cluster.redis().await;
    let mut streams = Vec::new();
    for number in 0..20 {
        streams.push(cluster.client(number % 2).listen("lobby").await);
    }
    cluster.publish_range("lobby", 1, 2).await; // loads the script, and moves the rings to the epoch
    for stream in &mut streams {
        stream.messages(2).await;
    }
    scripts(&redis).await;

    for number in 3..=22 {
        cluster.publish_text("lobby", &number.to_string()).await;
    }
    for stream in &mut streams {
        assert_eq!(stream.offsets(20).await, (3..=22).collect::<Vec<_>>());
    }
    assert_eq!(scripts(&redis).await, 20, "twenty publishes, and twenty streams read nothing");

    cluster.batch(vec![text_message("lobby", "x"); 100]).await.unwrap();
    for stream in &mut streams {
        stream.messages(100).await;
    }
    assert_eq!(scripts(&redis).await, 100, "each item of a batch is a script, in one pipeline");
}

/// Redis delivers each message once per instance, however many subscribers it has.
#[tokio::test]
async fn an_instance_subscribes_once_per_channel() {
    let server = own_redis().await;
    let cluster = start(&server).await;
    let redis = cluster.redis().await;
    let mut streams = Vec::new();
    for _ in 0..50 {
        streams.push(cluster.listen("lobby").await);
    }
    assert_eq!(redis.subscribers("lobby").await, 1);
    streams.push(cluster.client(1).listen("lobby").await);
    assert_eq!(redis.subscribers("lobby").await, 2);
}

#[tokio::test]
async fn reads_from_the_same_position_are_shared() {
    let server = own_redis().await;
    let cluster = start(&server).await;
    let redis = cluster.redis().await;
    let mut streams = Vec::new();
    for _ in 0..30 {
        streams.push(cluster.listen("lobby").await);
    }
    cluster.publish_range("lobby", 1, 2).await;
    for stream in &mut streams {
        stream.messages(2).await;
    }
    scripts(&redis).await;

    // Redis loses the channel; all 30 must read its state.
    redis.delete_channel("lobby").await;
    cluster.publish_text("lobby", "new").await;
    for stream in &mut streams {
        stream.reset().await;
        assert_eq!(stream.text().await, "new");
    }
    let cost = scripts(&redis).await;
    assert!(cost <= 1 + 1 + 10, "a publish, a fill, and few reads: {cost}");
}
