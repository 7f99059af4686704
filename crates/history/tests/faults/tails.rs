//! Loading a tail, stopped between the reading of Postgres and the load.

use std::time::Duration;

use fail::FailScenario;
use redis::cmd;
use tidings_devstack::testing;

use crate::hold::Hold;
use crate::support::client::{Source, newest, source};
use crate::support::{Histories, eventually, seqs};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_append_while_a_tail_is_loaded_is_in_the_tail() {
    let _scenario = FailScenario::setup();
    let histories = Histories::start_two().await;
    let redis = histories.redis().await;
    for (conversation, others) in [("one", 1), ("many", 250)] {
        histories.fill(conversation, 30).await;
        let hold = Hold::first_at("history::before_load");
        let client = histories.client(1);
        let request = newest(conversation, 50);
        let loader = tokio::spawn(async move { client.list(request).await.unwrap() });
        hold.holds().await;

        for key in 0..others {
            histories.say(conversation, "bob", &key.to_string()).await;
        }
        drop(hold);
        let page = loader.await.unwrap();

        let truth = histories.truth(conversation).await;
        assert_eq!(page.messages, truth[truth.len().saturating_sub(50)..], "the loader fetched what it had missed");
        let tail = redis.tail(conversation).await;
        assert_eq!(tail.last(), Some(&(30 + others)));
        let page = histories.newest(conversation, 50).await;
        assert_eq!(source(page.read_info), Source::Redis);
        assert_eq!(page.messages, truth[truth.len().saturating_sub(50)..]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_commit_that_only_the_outbox_told_of_while_a_tail_is_loaded_is_in_the_tail() {
    let _scenario = FailScenario::setup();
    let histories = Histories::start_two().await;
    histories.fill("lobby", 30).await;
    histories.settled().await;
    let hold = Hold::first_at("history::before_load");
    let client = histories.client(1);
    let loader = tokio::spawn(async move { client.newest("lobby", 50).await });
    hold.holds().await;

    fail::cfg("history::before_apply", "1*panic->off").unwrap();
    let failure = histories.append(crate::support::client::text("lobby", "bob", "orphan", "x")).await.unwrap_err();
    assert_eq!(failure.reason, "INTERNAL");
    histories.settled().await;
    drop(hold);

    assert_eq!(seqs(&loader.await.unwrap().messages), (1..=31).collect::<Vec<_>>());
    let page = histories.newest("lobby", 50).await;
    assert_eq!((source(page.read_info), page.last_seq), (Source::Redis, 31));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_loader_paused_past_its_lease_is_refused() {
    let _scenario = FailScenario::setup();
    let histories = Histories::start_on(testing::shared().await, 2, |_, config| {
        config.tails.history_lease_ttl = Duration::from_millis(200).into();
    })
    .await;
    let redis = histories.redis().await;
    let leased = async |conversation| redis.run::<bool>(cmd("EXISTS").arg(redis.lease_key(conversation))).await;
    for another_loads in [false, true] {
        let conversation = if another_loads { "loaded" } else { "unloaded" };
        histories.fill(conversation, 30).await;
        let hold = Hold::first_at("history::before_load");
        let client = histories.client(1);
        let request = newest(conversation, 50);
        let loader = tokio::spawn(async move { client.list(request).await.unwrap() });
        hold.holds().await;
        eventually("the lease has expired", async || !leased(conversation).await).await;

        histories.say(conversation, "bob", "news").await;
        if another_loads {
            assert_eq!(histories.newest(conversation, 50).await.last_seq, 31);
        }
        drop(hold);
        let page = loader.await.unwrap();

        assert_eq!(seqs(&page.messages), (1..=30).collect::<Vec<_>>(), "its page is right, and older");
        let expected: Vec<i64> = if another_loads { (1..=31).collect() } else { Vec::new() };
        assert_eq!(redis.tail(conversation).await, expected);
        assert_eq!(histories.newest(conversation, 50).await.messages, histories.truth(conversation).await);
    }
}
