//! What is kept, and what is told when it is not: the ring of an instance, the stream in Redis, and what is trimmed.

use std::time::Duration;

use tidings_broadcast::Config;

use crate::support::client::{after, everything, last};
use crate::support::ear::Ear;
use crate::support::{Broadcasts, eventually};

/// A ring of 10 and a stream of 40 messages.
fn small(config: &mut Config) {
    config.streams.broadcast_ring_messages = 10;
    config.channels.broadcast_history_count = 40;
}

/// Checks that a stream brings what follows `offset`: first the gap, if what was wanted is trimmed, then the rest.
async fn assert_resumed(ear: &mut Ear, epoch: &str, offset: i64, oldest: i64, head: i64) {
    let first = oldest.max(offset + 1);
    if first > offset + 1 {
        assert_eq!(ear.gap().await, (epoch.to_owned(), offset + 1, first - 1));
    }
    let count = usize::try_from(head - first + 1).unwrap();
    assert_eq!(ear.offsets(count).await, (first..=head).collect::<Vec<_>>(), "after {offset}");
    assert_eq!(ear.caught_up().await, (epoch.to_owned(), head));
}

#[tokio::test]
async fn a_reconnect_from_any_offset_has_no_hole_and_no_double() {
    let broadcasts = Broadcasts::start_tuned(2, small).await;
    // The ring of the second instance has the last 10, the stream the last 40.
    let listener = broadcasts.client(1).listen("lobby").await;
    let (epoch, head) = broadcasts.count("lobby", 1, 70).await;

    for offset in 0..=head {
        let mut ear = broadcasts.client(1).subscribe(after("lobby", &epoch, offset)).await;
        assert_resumed(&mut ear, &epoch, offset, 31, head).await;
    }
    drop(listener);
}

#[tokio::test]
async fn a_thousand_messages_are_kept_and_the_rest_is_told_exactly() {
    let broadcasts = Broadcasts::start().await;
    let (epoch, head) = broadcasts.count("lobby", 1, 1100).await;
    assert_eq!(broadcasts.get("lobby").await.unwrap().oldest, 101);

    for offset in [0, 1, 99, 100, 101, 599, 843, 844, 1098, 1099, 1100] {
        let mut ear = broadcasts.subscribe(after("lobby", &epoch, offset)).await;
        assert_resumed(&mut ear, &epoch, offset, 101, head).await;
    }
    let mut ear = broadcasts.subscribe(everything("lobby")).await;
    assert_resumed(&mut ear, &epoch, 0, 101, head).await;
}

#[tokio::test]
async fn what_is_too_old_is_told_exactly_and_never_delivered() {
    let broadcasts = Broadcasts::start_tuned(1, |config| {
        config.channels.broadcast_history_age = Duration::from_secs(1).into();
    })
    .await;
    let (epoch, _) = broadcasts.count("lobby", 1, 20).await;
    eventually("they are too old", async || broadcasts.get("lobby").await.unwrap().oldest == 21).await;

    for offset in [0, 5, 19, 20] {
        let mut ear = broadcasts.subscribe(after("lobby", &epoch, offset)).await;
        assert_resumed(&mut ear, &epoch, offset, 21, 20).await;
    }
    let mut ear = broadcasts.subscribe(last("lobby", 5)).await;
    assert_eq!(ear.caught_up().await, (epoch.clone(), 20));
    assert_eq!(broadcasts.say("lobby", "21").await, (epoch, 21));
    assert_eq!(ear.text().await, "21");
}

#[tokio::test]
async fn of_messages_of_many_ages_those_that_are_too_old_are_found() {
    let broadcasts = Broadcasts::start().await;
    let redis = broadcasts.redis().await;
    let (epoch, _) = broadcasts.count("lobby", 1, 100).await;
    let now: i64 = redis.meta("lobby", "time").await.unwrap().parse().unwrap();

    for too_old in [0, 1, 2, 50, 98, 99, 100] {
        // The same messages once more, the first so many of them published more than an hour ago.
        let stream = redis.stream_key("lobby");
        redis.run::<()>(redis::cmd("DEL").arg(&stream)).await;
        for offset in 1..=100 {
            let time = if offset <= too_old { now - 3_700_000_000 } else { now };
            let mut add = redis::cmd("XADD");
            add.arg(&stream).arg(format!("{offset}-0")).arg("t").arg(time).arg("b").arg("");
            redis.run::<()>(&add).await;
        }
        let oldest = too_old + 1;
        assert_eq!(broadcasts.get("lobby").await.unwrap().oldest, oldest);
        let mut ear = broadcasts.subscribe(everything("lobby")).await;
        assert_resumed(&mut ear, &epoch, 0, oldest, 100).await;
    }
}

#[tokio::test]
async fn a_publish_takes_away_what_is_too_old() {
    let broadcasts = Broadcasts::start_tuned(1, |config| {
        config.channels.broadcast_history_age = Duration::from_millis(500).into();
    })
    .await;
    let redis = broadcasts.redis().await;
    broadcasts.count("lobby", 1, 50).await;
    // Kept alive, as by publishes all the time.
    redis.run::<()>(redis::cmd("PERSIST").arg(redis.stream_key("lobby"))).await;
    eventually("they are too old", async || broadcasts.get("lobby").await.unwrap().oldest == 51).await;

    let mut kept = 50;
    for number in 51..=65 {
        broadcasts.say("lobby", &number.to_string()).await;
        redis.run::<()>(redis::cmd("PERSIST").arg(redis.stream_key("lobby"))).await;
        let now: i64 = redis.run(redis::cmd("XLEN").arg(redis.stream_key("lobby"))).await;
        assert!(now < kept || now < 20, "each takes away more than it adds: {now} of {kept}");
        kept = now;
    }
}

#[tokio::test]
async fn a_ring_that_was_emptied_for_others_is_read_from_redis() {
    let broadcasts = Broadcasts::start_tuned(1, |config| config.streams.broadcast_rings_bytes = 2000).await;
    let mut ears = Vec::new();
    for number in 0..5 {
        ears.push(broadcasts.listen(&number.to_string()).await);
    }
    for number in 0..5 {
        broadcasts.count(&number.to_string(), 1, 50).await;
    }
    for (number, ear) in ears.iter_mut().enumerate() {
        assert_eq!(ear.offsets(50).await, (1..=50).collect::<Vec<_>>());
        let mut ear = broadcasts.subscribe(everything(&number.to_string())).await;
        assert_eq!(ear.offsets(50).await, (1..=50).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn frames_of_large_messages_stay_within_their_bound_wherever_they_come_from() {
    let broadcasts = Broadcasts::start().await;
    let mut live = broadcasts.listen("lobby").await;
    let sizes = [65_536, 65_536, 65_536, 60_000, 10, 65_536, 1, 40_000, 40_000, 40_000, 40_000, 40_000, 40_000, 40_000];
    for size in sizes {
        broadcasts.say("lobby", &"x".repeat(size)).await;
    }

    // That each frame is within the bound is checked by the ear.
    let mut read = broadcasts.subscribe(everything("lobby")).await;
    for ear in [&mut live, &mut read] {
        let messages = ear.messages(sizes.len()).await;
        assert_eq!(messages.iter().map(|message| message.data.len()).collect::<Vec<_>>(), sizes);
    }
}

#[tokio::test]
async fn a_reader_that_was_slow_gets_all_that_a_large_ring_has_without_another_publish() {
    let broadcasts = Broadcasts::start_tuned(1, |config| {
        config.streams.broadcast_ring_bytes = 16 * 1024 * 1024;
    })
    .await;
    let mut slow = broadcasts.narrow_client(0).listen("lobby").await;
    for _ in 0..60 {
        broadcasts.say("lobby", &"x".repeat(60_000)).await; // many frames, more than the connection takes unread
    }
    assert_eq!(slow.offsets(60).await, (1..=60).collect::<Vec<_>>());
}
