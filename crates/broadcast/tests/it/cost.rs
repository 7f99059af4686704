//! What it costs Redis: commands, counted by Redis.

use redis::cmd;

use crate::support::client::saying;
use crate::support::redis::Tampering;
use crate::support::{Broadcasts, NEVER, own_stack};

/// Scripts that were sent since the last look, each in a round trip of its own or in a pipeline.
async fn scripts(redis: &Tampering) -> u64 {
    let info: String = redis.run(cmd("INFO").arg("commandstats")).await;
    redis.run::<()>(cmd("CONFIG").arg("RESETSTAT")).await;
    let calls = |name: &str| -> u64 {
        let line = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
        line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    };
    calls("evalsha") + calls("eval")
}

/// One or two instances on a Redis of their own, which compare nothing, so that only what is asked for is counted.
async fn start(stack: &tidings_devstack::Devstack) -> Broadcasts<'_> {
    Broadcasts::start_on(stack, 2, |_, config| config.streams.broadcast_compare_interval = NEVER.into()).await
}

#[tokio::test]
async fn a_publish_is_one_round_trip_and_costs_subscribers_no_other() {
    let stack = own_stack().await;
    let broadcasts = start(&stack).await;
    let redis = broadcasts.redis().await;
    let mut ears = Vec::new();
    for number in 0..20 {
        ears.push(broadcasts.client(number % 2).listen("lobby").await);
    }
    broadcasts.count("lobby", 1, 2).await; // redis learns the script, the rings the epoch
    for ear in &mut ears {
        ear.messages(2).await;
    }
    scripts(&redis).await;

    for number in 3..=22 {
        broadcasts.say("lobby", &number.to_string()).await;
    }
    for ear in &mut ears {
        assert_eq!(ear.offsets(20).await, (3..=22).collect::<Vec<_>>());
    }
    assert_eq!(scripts(&redis).await, 20, "twenty publishes, and twenty streams read nothing");

    broadcasts.batch(vec![saying("lobby", "x"); 100]).await.unwrap();
    for ear in &mut ears {
        ear.messages(100).await;
    }
    assert_eq!(scripts(&redis).await, 100, "each item of a batch is a script, in one pipeline");
}

#[tokio::test]
async fn subscribers_of_one_channel_at_one_instance_cost_redis_one_delivery() {
    let stack = own_stack().await;
    let broadcasts = start(&stack).await;
    let redis = broadcasts.redis().await;
    let mut ears = Vec::new();
    for _ in 0..50 {
        ears.push(broadcasts.listen("lobby").await);
    }
    assert_eq!(redis.listeners("lobby").await, 1);
    ears.push(broadcasts.client(1).listen("lobby").await);
    assert_eq!(redis.listeners("lobby").await, 2);
}

#[tokio::test]
async fn readers_of_the_same_share_one_read() {
    let stack = own_stack().await;
    let broadcasts = start(&stack).await;
    let redis = broadcasts.redis().await;
    let mut ears = Vec::new();
    for _ in 0..30 {
        ears.push(broadcasts.listen("lobby").await);
    }
    broadcasts.count("lobby", 1, 2).await;
    for ear in &mut ears {
        ear.messages(2).await;
    }
    scripts(&redis).await;

    // Redis loses the channel; all 30 must read where it stands now.
    redis.forget("lobby").await;
    broadcasts.say("lobby", "anew").await;
    for ear in &mut ears {
        ear.reset().await;
        assert_eq!(ear.text().await, "anew");
    }
    let cost = scripts(&redis).await;
    assert!(cost <= 1 + 1 + 10, "a publish, a fill, and few reads: {cost}");
}
