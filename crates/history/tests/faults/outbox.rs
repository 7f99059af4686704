//! A writer that crashes or stalls between its commit and the tail update.

use fail::FailScenario;
use tidings_devstack::testing::{self, FailPointPause, NEVER, eventually};

use crate::support::client::{Source, newest_with_min_seq, source, text};
use crate::support::{HistoryCluster, seqs};

/// The outbox row of the crashed append makes the relay of another instance repair the tail. A
/// retry of the append is deduplicated.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crash_between_commit_and_tail_update_is_repaired() {
    let _scenario = FailScenario::setup();
    // Only the second instance relays. The first has no tick, as if it had crashed.
    let cluster = HistoryCluster::start_on(testing::shared().await, 2, |index, config| {
        if index == 0 {
            config.relay.history_relay_tick = NEVER.into();
        }
    })
    .await;
    let (crashing, healthy) = (cluster.client(0), cluster.client(1));
    healthy.fill("lobby", 5).await;
    healthy.newest("lobby", 5).await;

    for round in 1..=3 {
        let request = text("lobby", "ada", &format!("orphan-{round}"), "x");
        fail::cfg("history::before_tail_update", "1*panic->off").unwrap();
        let failure = crashing.append(request.clone()).await.unwrap_err();
        assert_eq!((failure.code, failure.reason.as_str()), (tonic::Code::Internal, "INTERNAL"));
        assert_eq!(failure.message, "internal error");

        let page = healthy.list(newest_with_min_seq("lobby", 5 + round, 3)).await.unwrap();
        assert_eq!(page.last_seq, 5 + round, "a page with min_seq has the message at once");
        cluster.redis().await.evict("lobby").await;
        let retry = healthy.append(request).await.unwrap();
        assert_eq!((retry.deduplicated, retry.message.unwrap().seq), (true, 5 + round));
        healthy.newest("lobby", 3).await;
    }
    cluster.wait_until_relayed().await;
    assert_eq!(healthy.newest("lobby", 200).await.messages, cluster.truth("lobby").await);
}

/// A message whose writer crashed after the commit reaches the tail through the relay.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_relay_repairs_the_tail_after_a_crashed_append() {
    let _scenario = FailScenario::setup();
    let cluster = HistoryCluster::start_two().await;
    let redis = cluster.redis().await;
    cluster.fill("lobby", 5).await;
    cluster.newest("lobby", 5).await;
    cluster.wait_until_relayed().await;

    for round in 1..=3 {
        fail::cfg("history::before_tail_update", "1*panic->off").unwrap();
        cluster.append(text("lobby", "ada", &round.to_string(), "x")).await.unwrap_err();
        eventually("the relay has updated the tail", async || redis.tail("lobby").await.len() == 5 + round).await;
        let page = cluster.newest("lobby", 2).await;
        assert_eq!((source(page.read_info), page.last_seq), (Source::Redis, 5 + round as i64));
    }
    cluster.wait_until_relayed().await;
}

/// A tail update that runs after the relay has repaired the tail is ignored.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_late_tail_update_changes_nothing() {
    let _scenario = FailScenario::setup();
    let cluster = HistoryCluster::start_two().await;
    let redis = cluster.redis().await;
    cluster.fill("lobby", 5).await;
    cluster.newest("lobby", 5).await;

    let hold = FailPointPause::first_at("history::before_tail_update");
    let slow = cluster.client(1);
    let append = tokio::spawn(async move { slow.say("lobby", "ada", "slow").await });
    hold.reached().await;
    for key in ["a", "b"] {
        cluster.say("lobby", "bob", key).await; // follows a message that the tail lacks
    }
    cluster.wait_until_relayed().await;
    let before = cluster.newest("lobby", 9).await;
    drop(hold);

    assert_eq!(append.await.unwrap().seq, 6);
    assert_eq!(seqs(&before.messages), (1..=8).collect::<Vec<_>>());
    assert_eq!(cluster.newest("lobby", 9).await.messages, before.messages);
    assert_eq!(redis.tail("lobby").await, (1..=8).collect::<Vec<_>>());
}
