//! A relay that is killed between two of its steps.

use fail::FailScenario;
use tidings_devstack::testing::{self, eventually};

use crate::support::client::text;
use crate::support::fake_broadcast::FakeBroadcast;
use crate::support::{HistoryCluster, seqs};

/// Messages are published in order, and again only with the same (seq, edit_version), whether or
/// not broadcast remembers the request ids.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_relay_killed_between_any_two_steps_loses_nothing() {
    let _scenario = FailScenario::setup();
    for forgetful in [false, true] {
        let broadcast = FakeBroadcast::start().await;
        broadcast.set_faults(|faults| faults.forgetful = forgetful);
        let mut cluster =
            HistoryCluster::start_on(testing::shared().await, 2, |_, config| broadcast.attach(config)).await;
        cluster.create("lobby").await;
        let mut count = 0;
        for point in ["history::relay_after_tails", "history::relay_after_publish", "history::relay_after_mark"] {
            fail::cfg(point, "1*panic->off").unwrap();
            for _ in 0..10 {
                append_anywhere(&cluster, &count.to_string()).await;
                count += 1;
            }
            cluster.wait_until_relayed().await;
            // The instance at the fail-point has ended, because a service ends with its relay.
            for index in 0..2 {
                cluster.crash(index).await;
            }
        }

        let truth = cluster.truth("lobby").await;
        assert_eq!(truth.len(), count);
        let published = broadcast.published("lobby");
        let mut firsts: Vec<_> = Vec::new();
        for message in &published {
            if !firsts.contains(message) {
                firsts.push(message.clone());
            }
        }
        assert_eq!(firsts, truth, "first publications are complete and in order: {:?}", seqs(&published));
        assert!(forgetful || published.len() == count, "broadcast deduplicated the second publication");
    }
}

/// Appends through the first instance that succeeds.
async fn append_anywhere(cluster: &HistoryCluster<'_>, key: &str) {
    let mut index = 0;
    eventually("an instance appends the message", async || {
        index = 1 - index;
        cluster.client(index).append(text("lobby", "ada", key, "x")).await.is_ok()
    })
    .await;
}
