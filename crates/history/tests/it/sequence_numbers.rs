//! Seqs: gapless and in order of commit, while callers disconnect and instances crash.

use std::collections::HashMap;
use std::time::Duration;

use rand::RngExt as _;
use tidings_devstack::testing::eventually;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::HistoryCluster;
use crate::support::client::{HistoryClient, text};

const WRITERS: usize = 120;
const MESSAGES: usize = 8;

/// Appends messages one after the other through any instance. Cancels calls at random and retries
/// them.
async fn write(clients: Vec<HistoryClient>, sender: String) -> Vec<i64> {
    let mut seqs = Vec::new();
    for key in 0..MESSAGES {
        let request = text("lobby", &sender, &key.to_string(), &format!("{sender} says {key}"));
        while rand::rng().random_ratio(2, 5) {
            let client = &clients[rand::rng().random_range(0..clients.len())];
            let limit = Duration::from_millis(rand::rng().random_range(0..80));
            let _ = timeout(limit, client.append(request.clone())).await;
        }
        let client = &clients[rand::rng().random_range(0..clients.len())];
        let appended = client.append_on_busy_machine(request).await;
        seqs.push(appended.message.unwrap().seq);
    }
    seqs
}

/// 120 writers use three instances, cancel calls at random and retry them, while instances crash.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seqs_are_gapless_and_in_order_of_commit() {
    let mut cluster = HistoryCluster::start_three().await;
    cluster.create("lobby").await;
    let clients: Vec<HistoryClient> = (0..3).map(|index| cluster.client(index)).collect();

    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let clients = clients.clone();
        writers.spawn(async move {
            let sender = format!("writer-{writer}");
            (sender.clone(), write(clients, sender).await)
        });
    }
    for index in [0, 1, 2, 0] {
        sleep(Duration::from_millis(400)).await;
        cluster.crash(index).await;
    }
    cluster.restart(1).await;
    let acknowledged: HashMap<String, Vec<i64>> = writers.join_all().await.into_iter().collect();

    // `truth` checks that the seqs are 1..=n and that times never decrease.
    let messages = cluster.truth("lobby").await;
    assert_eq!(messages.len(), WRITERS * MESSAGES);
    let mut kept: HashMap<String, Vec<i64>> = HashMap::new();
    for message in &messages {
        let of_sender = kept.entry(message.sender_id.clone()).or_default();
        assert_eq!(message.client_message_id, of_sender.len().to_string(), "order of {}", message.sender_id);
        of_sender.push(message.seq);
    }
    assert_eq!(kept, acknowledged);
    cluster.wait_until_relayed().await;
    assert_eq!(cluster.newest("lobby", 200).await.messages, messages[messages.len() - 200..]);
    let idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
    eventually("no transaction is left open", async || cluster.count(idle).await == 0).await;
}
