//! The outbox: what a tail did not hear of it hears from the relay, and what it has not heard of yet is never invented.

use tidings_history::Config;

use crate::support::client::{Source, knowing, source};
use crate::support::{Histories, NEVER, eventually, seqs};
use tidings_devstack::testing;

/// The first instance reaches no Redis.
fn deaf(place: usize, config: &mut Config) {
    if place == 0 {
        config.redis.redis_url = "redis://127.0.0.1:1".parse().unwrap();
        config.redis.redis_timeout = Some(std::time::Duration::from_millis(50).into());
    }
}

#[tokio::test]
async fn a_plain_page_may_miss_a_message_that_redis_did_not_hear_of_but_min_seq_closes_the_gap() {
    let histories = Histories::start_on(testing::shared().await, 2, |place, config| {
        config.relay.history_relay_tick = NEVER.into();
        deaf(place, config);
    })
    .await;
    let (deaf, reader) = (histories.client(0), histories.client(1));
    reader.fill("lobby", 5).await;
    reader.newest("lobby", 5).await;

    deaf.say("lobby", "ada", "unheard").await;

    let plain = reader.newest("lobby", 3).await;
    assert_eq!((source(plain.read_info), seqs(&plain.messages), plain.last_seq), (Source::Redis, vec![3, 4, 5], 5));
    let knowing_page = reader.list(knowing("lobby", 6, 3)).await.unwrap();
    assert_eq!((seqs(&knowing_page.messages), knowing_page.last_seq), (vec![4, 5, 6], 6));
    // Whoever asked that brought the tail up to date for all.
    let plain = reader.newest("lobby", 3).await;
    assert_eq!((source(plain.read_info), seqs(&plain.messages)), (Source::Redis, vec![4, 5, 6]));

    // A gap below what comes next drops the tail: no page skips the message that Redis did not hear of.
    deaf.say("lobby", "ada", "unheard-too").await;
    reader.say("lobby", "bob", "heard").await;
    assert_eq!(seqs(&reader.newest("lobby", 3).await.messages), [6, 7, 8]);
    let failure = reader.list(knowing("lobby", 9, 3)).await.unwrap_err();
    assert_eq!((failure.reason.as_str(), failure.metadata["last_seq"].as_str()), ("SEQ_AHEAD", "8"));
}

#[tokio::test]
async fn what_redis_did_not_hear_of_is_in_the_tail_a_moment_later() {
    let histories = Histories::start_on(testing::shared().await, 2, deaf).await;
    let (deaf, reader) = (histories.client(0), histories.client(1));
    reader.fill("lobby", 5).await;
    reader.newest("lobby", 5).await;

    for round in 1..=3 {
        for key in ["a", "b", "c"] {
            deaf.say("lobby", "ada", &format!("{round}-{key}")).await;
        }
        let last = 5 + 3 * round;
        eventually("the relay has told the tail", async || {
            let page = reader.newest("lobby", 4).await;
            source(page.read_info) == Source::Redis && page.last_seq == last
        })
        .await;
    }
    histories.settled().await;
    assert_eq!(reader.newest("lobby", 200).await.messages, histories.truth("lobby").await);
}
