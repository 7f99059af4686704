//! The messages of one user in all conversations.

use std::collections::BTreeSet;

use tidings_proto::history as pb;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::Histories;
use crate::support::client::{Client, text};

fn of(user: &str, page_size: i32) -> pb::ListUserMessagesRequest {
    pb::ListUserMessagesRequest { user_id: user.to_owned(), page_size, ..Default::default() }
}

/// All pages, newest first.
async fn walk(client: &Client, mut request: pb::ListUserMessagesRequest) -> Vec<pb::Message> {
    let mut found = Vec::new();
    loop {
        let page = client.authored(request.clone()).await.unwrap();
        found.extend(page.messages);
        if page.next_page_token.is_empty() {
            return found;
        }
        request.page_token = page.next_page_token;
    }
}

/// Where a message is.
fn place(message: &pb::Message) -> (String, i64) {
    (message.conversation_id.clone(), message.seq)
}

#[tokio::test]
async fn a_user_sees_the_own_messages_newest_first_over_all_conversations() {
    let histories = Histories::start().await;
    let mut sent = Vec::new();
    for conversation in ["a", "b", "c"] {
        histories.create(conversation).await;
    }
    for key in 0..30 {
        let conversation = ["a", "b", "c"][key % 3];
        sent.push(histories.say(conversation, "ada", &key.to_string()).await);
        histories.say(conversation, "bob", &key.to_string()).await;
    }
    sent.reverse();

    for size in [1, 7, 30, 31] {
        assert_eq!(walk(&histories, of("ada", size)).await, sent, "pages of {size}");
    }
    assert!(walk(&histories, of("eve", 10)).await.is_empty());
    let bytes = pb::ListUserMessagesRequest { max_bytes: 1, ..of("ada", 10) };
    assert_eq!(walk(&histories, bytes).await, sent);
}

#[tokio::test]
async fn messages_of_one_moment_are_listed_by_number_and_none_is_lost_between_pages() {
    let histories = Histories::start().await;
    histories.create("a").await;
    histories.create("b").await;
    // One transaction has one time.
    let requests = (0..40).map(|key| text(["a", "b"][key % 2], "ada", &key.to_string(), "x"));
    histories.batch(requests.collect()).await.unwrap();

    let found = walk(&histories, of("ada", 7)).await;

    assert_eq!(found.iter().map(place).collect::<BTreeSet<_>>().len(), 40);
    for conversation in ["a", "b"] {
        let numbers: Vec<i64> =
            found.iter().filter(|message| message.conversation_id == conversation).map(|message| message.seq).collect();
        assert_eq!(numbers, (1..=20).rev().collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_sees_every_message_once_while_others_append() {
    let histories = Histories::start().await;
    histories.fill("a", 150).await;
    histories.fill("b", 150).await;
    let stop = CancellationToken::new();
    let mut appends = JoinSet::new();
    for (conversation, sender) in [("a", "ada"), ("b", "bob"), ("b", "ada")] {
        let (client, stop) = ((*histories).clone(), stop.clone());
        appends.spawn(async move {
            let mut count = 0;
            while !stop.is_cancelled() {
                client.say(conversation, sender, &format!("meanwhile-{count}")).await;
                count += 1;
            }
        });
    }

    for size in [7, 50, 199] {
        let known: BTreeSet<_> = walk(&histories, of("ada", 200)).await.iter().map(place).collect();
        let found = walk(&histories, of("ada", size)).await;
        let places: BTreeSet<_> = found.iter().map(place).collect();
        assert_eq!(places.len(), found.len(), "a message came twice");
        assert!(places.is_superset(&known), "a message is missing");
        assert!(found.iter().all(|message| message.sender_id == "ada"));
        assert!(found.is_sorted_by_key(|message| {
            let time = message.create_time.unwrap();
            std::cmp::Reverse((time.seconds, time.nanos))
        }));
    }
    stop.cancel();
    appends.join_all().await;
}
