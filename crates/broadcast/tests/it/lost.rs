//! Messages that pub/sub loses, brings late, or brings from an epoch that is over.

use std::time::Duration;

use redis::cmd;
use tokio::time::Instant;

use crate::support::client::{everything, latest};
use crate::support::proxy::Proxy;
use crate::support::{Broadcasts, NEVER, eventually, own_stack};

#[tokio::test]
async fn a_message_that_got_lost_on_its_way_is_found_by_the_next_comparison() {
    let broadcasts = Broadcasts::start().await;
    let redis = broadcasts.redis().await;
    let mut ear = broadcasts.listen("lobby").await;
    let (epoch, _) = broadcasts.count("lobby", 1, 3).await;
    assert_eq!(ear.offsets(3).await, [1, 2, 3]);

    let start = Instant::now();
    assert_eq!(redis.publish_unheard("lobby", "lost").await, (epoch, 4));

    assert_eq!(ear.text().await, "lost");
    // Every 5 s; the rest is for a busy machine.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_message_that_got_lost_on_its_way_is_found_by_the_next_message() {
    let broadcasts = Broadcasts::start_tuned(1, |config| {
        config.streams.broadcast_compare_interval = NEVER.into();
    })
    .await;
    let redis = broadcasts.redis().await;
    let mut ear = broadcasts.listen("lobby").await;
    broadcasts.count("lobby", 1, 3).await;
    for number in 4..7 {
        redis.publish_unheard("lobby", &number.to_string()).await;
    }
    broadcasts.count("lobby", 7, 9).await;

    assert_eq!(ear.offsets(9).await, (1..=9).collect::<Vec<_>>());
}

#[tokio::test]
async fn more_lost_messages_than_a_ring_holds_are_found_and_what_is_trimmed_is_told() {
    let broadcasts = Broadcasts::start_tuned(1, |config| {
        config.streams.broadcast_compare_interval = Duration::from_millis(300).into();
        config.streams.broadcast_ring_messages = 10;
    })
    .await;
    let redis = broadcasts.redis().await;
    let mut ear = broadcasts.listen("lobby").await;
    let (epoch, _) = broadcasts.count("lobby", 1, 3).await;
    assert_eq!(ear.offsets(3).await, [1, 2, 3]);

    // In one step, so that no comparison comes between.
    let silent = r"
        for offset = 4, 1200 do
            redis.call('XADD', KEYS[1], 'MAXLEN', '=', 1000, offset .. '-0', 't', ARGV[1], 'b', '')
        end
        redis.call('HSET', KEYS[2], 'head', 1200)";
    let time = redis.meta("lobby", "time").await.unwrap();
    let mut eval = cmd("EVAL");
    eval.arg(silent).arg(2).arg(redis.stream_key("lobby")).arg(redis.meta_key("lobby")).arg(time);
    redis.run::<()>(&eval).await;

    assert_eq!(ear.gap().await, (epoch.clone(), 4, 200));
    assert_eq!(ear.offsets(1000).await, (201..=1200).collect::<Vec<_>>());
    assert_eq!(broadcasts.say("lobby", "live").await, (epoch, 1201));
    assert_eq!(ear.text().await, "live");
}

#[tokio::test]
async fn a_session_that_is_deaf_is_replaced_and_what_it_missed_is_delivered() {
    let stack = own_stack().await;
    let proxy = Proxy::to(stack.redis().port()).await;
    let broadcasts = Broadcasts::start_on(&stack, 2, |place, config| {
        if place == 1 {
            config.redis.redis_url = proxy.url().parse().unwrap();
            config.streams.broadcast_compare_interval = NEVER.into(); // only a new session finds it
        }
    })
    .await;
    let mut ear = broadcasts.client(1).listen("lobby").await;
    broadcasts.count("lobby", 1, 3).await;
    assert_eq!(ear.offsets(3).await, [1, 2, 3]);
    let sessions = proxy.listening();

    proxy.deafen();
    broadcasts.count("lobby", 4, 6).await;

    assert_eq!(ear.offsets(3).await, [4, 5, 6]);
    assert!(proxy.listening() > sessions);
    broadcasts.count("lobby", 7, 8).await;
    assert_eq!(ear.offsets(2).await, [7, 8]);
}

#[tokio::test]
async fn messages_of_an_old_epoch_that_arrive_late_do_not_bring_it_back() {
    let broadcasts = Broadcasts::start_tuned(1, |config| {
        config.streams.broadcast_compare_interval = Duration::from_millis(200).into();
    })
    .await;
    let redis = broadcasts.redis().await;
    let mut ear = broadcasts.listen("lobby").await;
    let (old, _) = broadcasts.count("lobby", 1, 3).await;
    assert_eq!(ear.offsets(3).await, [1, 2, 3]);

    redis.forget("lobby").await;
    let (new, _) = broadcasts.count("lobby", 1, 2).await;
    assert_eq!(ear.reset().await.0, new);
    assert_eq!(ear.offsets(2).await, [1, 2]);
    for offset in [4, 5, 3, 1, 100] {
        redis.tell("lobby", &old, offset, "late").await;
    }
    broadcasts.count("lobby", 3, 4).await;

    assert_eq!(ear.offsets(2).await, [3, 4]);
    ear.assert_silent(Duration::from_secs(1)).await;
    let mut later = broadcasts.subscribe(everything("lobby")).await;
    assert_eq!(later.offsets(4).await, [1, 2, 3, 4]);
    assert_eq!(later.caught_up().await, (new, 4));
}

#[tokio::test]
async fn what_is_heard_twice_or_is_no_message_is_delivered_once_or_not_at_all() {
    let broadcasts = Broadcasts::start().await;
    let redis = broadcasts.redis().await;
    let mut ear = broadcasts.listen("lobby").await;
    let (epoch, _) = broadcasts.count("lobby", 1, 3).await;

    for offset in 1..=3 {
        redis.tell("lobby", &epoch, offset, "again").await;
    }
    redis.tell("lobby", &epoch, 9, "from the future").await;
    redis.run::<()>(cmd("PUBLISH").arg(redis.ear("lobby")).arg("nonsense")).await;
    broadcasts.count("lobby", 4, 5).await;

    let texts: Vec<_> = ear.messages(5).await.iter().map(crate::support::ear::text).collect();
    assert_eq!(texts, ["1", "2", "3", "4", "5"]);
    ear.assert_silent(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn a_channel_that_is_lost_is_told_and_its_next_epoch_needs_no_second_reset() {
    let broadcasts = Broadcasts::start_tuned(2, |config| {
        config.streams.broadcast_compare_interval = Duration::from_millis(200).into();
    })
    .await;
    let redis = broadcasts.redis().await;
    let mut ears = Vec::new();
    for place in [0, 1] {
        ears.push(broadcasts.client(place).listen("lobby").await);
    }
    for round in 0..5 {
        let (epoch, _) = broadcasts.count("lobby", 1, 3).await;
        for ear in &mut ears {
            let messages = ear.messages(3).await;
            assert!(messages.iter().all(|message| message.epoch == epoch), "round {round}");
        }
        redis.forget("lobby").await;
        for ear in &mut ears {
            assert_eq!(ear.reset().await, (String::new(), 0));
        }
        let late = broadcasts.subscribe(latest("lobby")).await.caught_up().await;
        assert_eq!(late, (String::new(), 0));
    }
}

#[tokio::test]
async fn an_epoch_that_came_and_went_before_a_subscriber_saw_it_is_told() {
    let broadcasts = Broadcasts::start_tuned(1, |config| {
        config.streams.broadcast_compare_interval = NEVER.into();
    })
    .await;
    let redis = broadcasts.redis().await;
    let mut ear = broadcasts.listen("lobby").await;

    redis.tell("lobby", "0123456789abcdef", 1, "heard of, and lost with redis").await;
    assert_eq!(ear.reset().await, (String::new(), 0));

    let (epoch, _) = broadcasts.count("lobby", 1, 2).await;
    assert_eq!(ear.messages(2).await[0].epoch, epoch);
    eventually("nobody else was disturbed", async || broadcasts.get("lobby").await.is_ok()).await;
}
