//! Numbers: gapless, in order of commit, whoever goes away in the middle.

use std::collections::HashMap;
use std::time::Duration;

use rand::RngExt as _;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::client::{Client, text};
use crate::support::{Histories, eventually};

const WRITERS: usize = 120;
const MESSAGES: usize = 8;

/// Sends messages one after the other to any instance, and loses patience now and then.
async fn write(clients: Vec<Client>, sender: String) -> Vec<i64> {
    let mut numbers = Vec::new();
    for key in 0..MESSAGES {
        let request = text("lobby", &sender, &key.to_string(), &format!("{sender} says {key}"));
        while rand::rng().random_ratio(2, 5) {
            let client = &clients[rand::rng().random_range(0..clients.len())];
            let patience = Duration::from_millis(rand::rng().random_range(0..80));
            let _ = timeout(patience, client.append(request.clone())).await;
        }
        let client = &clients[rand::rng().random_range(0..clients.len())];
        let appended = client.insist(request).await;
        numbers.push(appended.message.unwrap().seq);
    }
    numbers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_are_gapless_and_in_order_of_commit() {
    let mut histories = Histories::start_three().await;
    histories.create("lobby").await;
    let clients: Vec<Client> = (0..3).map(|place| histories.client(place)).collect();

    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let clients = clients.clone();
        writers.spawn(async move {
            let sender = format!("writer-{writer}");
            (sender.clone(), write(clients, sender).await)
        });
    }
    for place in [0, 1, 2, 0] {
        sleep(Duration::from_millis(400)).await;
        histories.crash(place).await;
    }
    histories.restart(1).await;
    let acknowledged: HashMap<String, Vec<i64>> = writers.join_all().await.into_iter().collect();

    // The truth itself is checked to be 1..=n with times that never go back.
    let messages = histories.truth("lobby").await;
    assert_eq!(messages.len(), WRITERS * MESSAGES);
    let mut kept: HashMap<String, Vec<i64>> = HashMap::new();
    for message in &messages {
        let of_sender = kept.entry(message.sender_id.clone()).or_default();
        assert_eq!(message.client_message_id, of_sender.len().to_string(), "order of {}", message.sender_id);
        of_sender.push(message.seq);
    }
    assert_eq!(kept, acknowledged);
    histories.settled().await;
    assert_eq!(histories.newest("lobby", 200).await.messages, messages[messages.len() - 200..]);
    let idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
    eventually("no transaction is left open", async || histories.count(idle).await == 0).await;
}
