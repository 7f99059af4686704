//! ListUserMessages: the messages of one user in all conversations.

use std::collections::BTreeSet;

use tidings_proto::history as pb;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::HistoryCluster;
use crate::support::client::{HistoryClient, text};

fn of(user: &str, page_size: i32) -> pb::ListUserMessagesRequest {
    pb::ListUserMessagesRequest { user_id: user.to_owned(), page_size, ..Default::default() }
}

/// Reads all pages, newest message first.
async fn read_all(client: &HistoryClient, mut request: pb::ListUserMessagesRequest) -> Vec<pb::Message> {
    let mut listed = Vec::new();
    loop {
        let page = client.authored(request.clone()).await.unwrap();
        listed.extend(page.messages);
        if page.next_page_token.is_empty() {
            return listed;
        }
        request.page_token = page.next_page_token;
    }
}

/// Returns conversation and seq of a message.
fn position(message: &pb::Message) -> (String, i64) {
    (message.conversation_id.clone(), message.seq)
}

/// The list covers all conversations, at any page size and byte limit.
#[tokio::test]
async fn a_users_messages_are_listed_newest_first() {
    let cluster = HistoryCluster::start().await;
    let mut sent = Vec::new();
    for conversation in ["a", "b", "c"] {
        cluster.create(conversation).await;
    }
    for key in 0..30 {
        let conversation = ["a", "b", "c"][key % 3];
        sent.push(cluster.say(conversation, "ada", &key.to_string()).await);
        cluster.say(conversation, "bob", &key.to_string()).await;
    }
    sent.reverse();

    for size in [1, 7, 30, 31] {
        assert_eq!(read_all(&cluster, of("ada", size)).await, sent, "pages of {size}");
    }
    assert!(read_all(&cluster, of("eve", 10)).await.is_empty());
    let bytes = pb::ListUserMessagesRequest { max_bytes: 1, ..of("ada", 10) };
    assert_eq!(read_all(&cluster, bytes).await, sent);
}

/// Messages of one transaction have the same time. They are listed by descending seq, and none is
/// lost between pages.
#[tokio::test]
async fn messages_with_equal_times_are_listed_without_loss() {
    let cluster = HistoryCluster::start().await;
    cluster.create("a").await;
    cluster.create("b").await;
    // All messages of a transaction have the same time.
    let requests = (0..40).map(|key| text(["a", "b"][key % 2], "ada", &key.to_string(), "x"));
    cluster.batch(requests.collect()).await.unwrap();

    let listed = read_all(&cluster, of("ada", 7)).await;

    assert_eq!(listed.iter().map(position).collect::<BTreeSet<_>>().len(), 40);
    for conversation in ["a", "b"] {
        let seqs: Vec<i64> = listed
            .iter()
            .filter(|message| message.conversation_id == conversation)
            .map(|message| message.seq)
            .collect();
        assert_eq!(seqs, (1..=20).rev().collect::<Vec<_>>());
    }
}

/// Other writers append while the pages are read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paging_over_a_user_returns_every_message_once() {
    let cluster = HistoryCluster::start().await;
    cluster.fill("a", 150).await;
    cluster.fill("b", 150).await;
    let stop = CancellationToken::new();
    let mut appends = JoinSet::new();
    for (conversation, sender) in [("a", "ada"), ("b", "bob"), ("b", "ada")] {
        let (client, stop) = ((*cluster).clone(), stop.clone());
        appends.spawn(async move {
            let mut count = 0;
            while !stop.is_cancelled() {
                client.say(conversation, sender, &format!("meanwhile-{count}")).await;
                count += 1;
            }
        });
    }

    for size in [7, 50, 199] {
        let before: BTreeSet<_> = read_all(&cluster, of("ada", 200)).await.iter().map(position).collect();
        let listed = read_all(&cluster, of("ada", size)).await;
        let positions: BTreeSet<_> = listed.iter().map(position).collect();
        assert_eq!(positions.len(), listed.len(), "a message was listed twice");
        assert!(positions.is_superset(&before), "a message is missing");
        assert!(listed.iter().all(|message| message.sender_id == "ada"));
        assert!(listed.is_sorted_by_key(|message| {
            let time = message.create_time.unwrap();
            std::cmp::Reverse((time.seconds, time.nanos))
        }));
    }
    stop.cancel();
    appends.join_all().await;
}
