//! Loads of a tail that are paused between the read of Postgres and the load.

use std::time::Duration;

use fail::FailScenario;
use redis::cmd;
use tidings_devstack::testing::{self, FailPointPause, eventually};

use crate::support::client::{Source, newest, source};
use crate::support::{HistoryCluster, seqs};

/// The loader fetches messages that are committed between its read of Postgres and the load, both a
/// few and more than a tail holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_append_while_a_tail_is_loaded_is_in_the_tail() {
    let _scenario = FailScenario::setup();
    let cluster = HistoryCluster::start_two().await;
    let redis = cluster.redis().await;
    for (conversation, others) in [("one", 1), ("many", 250)] {
        cluster.fill(conversation, 30).await;
        let hold = FailPointPause::first_at("history::before_load");
        let client = cluster.client(1);
        let request = newest(conversation, 50);
        let loader = tokio::spawn(async move { client.list(request).await.unwrap() });
        hold.reached().await;

        for key in 0..others {
            cluster.say(conversation, "bob", &key.to_string()).await;
        }
        drop(hold);
        let page = loader.await.unwrap();

        let truth = cluster.truth(conversation).await;
        assert_eq!(
            page.messages,
            truth[truth.len().saturating_sub(50)..],
            "the loader fetched the messages that were committed meanwhile"
        );
        let tail = redis.tail(conversation).await;
        assert_eq!(tail.last(), Some(&(30 + others)));
        let page = cluster.newest(conversation, 50).await;
        assert_eq!(source(page.read_info), Source::Redis);
        assert_eq!(page.messages, truth[truth.len().saturating_sub(50)..]);
    }
}

/// The relay raises the load's floor for a message whose writer crashed before the tail update.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_relayed_commit_while_a_tail_is_loaded_is_in_the_tail() {
    let _scenario = FailScenario::setup();
    let cluster = HistoryCluster::start_two().await;
    cluster.fill("lobby", 30).await;
    cluster.wait_until_relayed().await;
    let hold = FailPointPause::first_at("history::before_load");
    let client = cluster.client(1);
    let loader = tokio::spawn(async move { client.newest("lobby", 50).await });
    hold.reached().await;

    fail::cfg("history::before_tail_update", "1*panic->off").unwrap();
    let failure = cluster.append(crate::support::client::text("lobby", "bob", "orphan", "x")).await.unwrap_err();
    assert_eq!(failure.reason, "INTERNAL");
    cluster.wait_until_relayed().await;
    drop(hold);

    assert_eq!(seqs(&loader.await.unwrap().messages), (1..=31).collect::<Vec<_>>());
    let page = cluster.newest("lobby", 50).await;
    assert_eq!((source(page.read_info), page.last_seq), (Source::Redis, 31));
}

/// A load after the lease has expired stores nothing, whether or not another reader loaded the
/// tail.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_loader_paused_past_its_lease_is_refused() {
    let _scenario = FailScenario::setup();
    let cluster = HistoryCluster::start_on(testing::shared().await, 2, |_, config| {
        config.tails.history_lease_ttl = Duration::from_millis(200).into();
    })
    .await;
    let redis = cluster.redis().await;
    let leased = async |conversation| redis.run::<bool>(cmd("EXISTS").arg(redis.lease_key(conversation))).await;
    for another_loads in [false, true] {
        let conversation = if another_loads { "loaded" } else { "unloaded" };
        cluster.fill(conversation, 30).await;
        let hold = FailPointPause::first_at("history::before_load");
        let client = cluster.client(1);
        let request = newest(conversation, 50);
        let loader = tokio::spawn(async move { client.list(request).await.unwrap() });
        hold.reached().await;
        eventually("the lease has expired", async || !leased(conversation).await).await;

        cluster.say(conversation, "bob", "new").await;
        if another_loads {
            assert_eq!(cluster.newest(conversation, 50).await.last_seq, 31);
        }
        drop(hold);
        let page = loader.await.unwrap();

        assert_eq!(
            seqs(&page.messages),
            (1..=30).collect::<Vec<_>>(),
            "the page of the paused loader is correct, and older"
        );
        let expected: Vec<i64> = if another_loads { (1..=31).collect() } else { Vec::new() };
        assert_eq!(redis.tail(conversation).await, expected);
        assert_eq!(cluster.newest(conversation, 50).await.messages, cluster.truth(conversation).await);
    }
}
