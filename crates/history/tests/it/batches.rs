//! BatchAppendMessages: one transaction, one outcome per item.

use std::collections::BTreeMap;

use rand::seq::SliceRandom as _;
use tidings_proto::history as pb;
use tidings_proto::history::ErrorReason;
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::client::{appended, refused, text};
use crate::support::{HistoryCluster, assert_numbered_from};

/// This holds in each of several conversations of one batch.
#[tokio::test]
async fn seqs_follow_the_order_of_the_request() {
    let cluster = HistoryCluster::start().await;
    cluster.fill("hall", 2).await;
    cluster.create("lobby").await;

    let conversations = ["lobby", "hall", "lobby"];
    let requests: Vec<_> = (0..9).map(|key| text(conversations[key % 3], "ada", &key.to_string(), "x")).collect();
    let outcomes = cluster.batch(requests.clone()).await.unwrap();

    let mut seqs: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for (request, outcome) in requests.iter().zip(&outcomes) {
        let (message, deduplicated) = appended(outcome);
        assert!(!deduplicated);
        assert_eq!(message.client_message_id, request.client_message_id);
        assert_eq!(message.conversation_id, request.conversation_id);
        seqs.entry(&message.conversation_id).or_default().push(message.seq);
    }
    assert_eq!(seqs["lobby"], [1, 2, 3, 4, 5, 6]);
    assert_eq!(seqs["hall"], [3, 4, 5]);
    assert_numbered_from(1, &cluster.truth("lobby").await);
    assert_numbered_from(1, &cluster.truth("hall").await);
}

#[tokio::test]
async fn two_items_with_one_key_and_one_content_are_one_message() {
    let cluster = HistoryCluster::start().await;
    cluster.create("lobby").await;
    let twin = text("lobby", "ada", "twin", "hello");

    let outcomes = cluster.batch(vec![twin.clone(), text("lobby", "ada", "b", "b"), twin.clone()]).await.unwrap();

    assert_eq!(appended(&outcomes[0]).0, appended(&outcomes[2]).0);
    assert_eq!([0, 1, 2].map(|index: usize| appended(&outcomes[index]).1), [false, false, true]);
    assert_eq!(cluster.truth("lobby").await.len(), 2);
    let retry = cluster.batch(vec![twin.clone(), twin]).await.unwrap();
    assert!(retry.iter().all(|outcome| appended(outcome) == (appended(&outcomes[0]).0, true)));
}

/// The second item is refused with the seq of the first.
#[tokio::test]
async fn two_items_with_one_key_and_other_content_are_one_message() {
    let cluster = HistoryCluster::start().await;
    cluster.fill("lobby", 1).await;

    let requests = vec![text("lobby", "ada", "twin", "a"), text("lobby", "ada", "twin", "b")];
    let outcomes = cluster.batch(requests).await.unwrap();

    assert_eq!(appended(&outcomes[0]).0.seq, 2);
    assert_eq!(refused(&outcomes[1]), (ErrorReason::ClientMessageIdReused, 2));
}

#[tokio::test]
async fn a_refused_item_does_not_block_the_others() {
    let cluster = HistoryCluster::start().await;
    cluster.fill("lobby", 2).await;

    let reply = |key, seq| pb::AppendMessageRequest { reply_to_seq: seq, ..text("lobby", "bob", key, "x") };
    let requests = vec![
        text("nowhere", "ada", "1", "x"),
        text("lobby", "ada", "fill-1", "another content"),
        reply("a", 3),
        text("lobby", "bob", "b", "x"),
        reply("c", 3), // replies to the item before it
        text("lobby", "ada", "fill-2", "fill-2"),
    ];
    let outcomes = cluster.batch(requests).await.unwrap();

    assert_eq!(refused(&outcomes[0]), (ErrorReason::ConversationNotFound, 0));
    assert_eq!(refused(&outcomes[1]), (ErrorReason::ClientMessageIdReused, 1));
    assert_eq!(refused(&outcomes[2]), (ErrorReason::ReplyTargetNotFound, 2));
    assert_eq!(appended(&outcomes[3]).0.seq, 3);
    assert_eq!(appended(&outcomes[4]).0.seq, 4);
    assert_eq!((appended(&outcomes[5]).0.seq, appended(&outcomes[5]).1), (2, true));
    assert_eq!(cluster.truth("lobby").await.len(), 4);
}

/// 101 items and an empty batch are refused, and nothing is stored.
#[tokio::test]
async fn a_batch_has_at_most_a_hundred_items() {
    let cluster = HistoryCluster::start().await;
    cluster.create("lobby").await;
    let requests = |count: usize| (0..count).map(|key| text("lobby", "ada", &key.to_string(), "x")).collect();

    let failure = cluster.batch(requests(101)).await.unwrap_err();
    assert_eq!((failure.code, failure.violations[0].field.as_str()), (Code::InvalidArgument, "requests"));
    let failure = cluster.batch(Vec::new()).await.unwrap_err();
    assert_eq!((failure.code, failure.violations[0].field.as_str()), (Code::InvalidArgument, "requests"));
    assert!(cluster.truth("lobby").await.is_empty());

    let outcomes = cluster.batch(requests(100)).await.unwrap();
    assert_eq!(
        outcomes.iter().map(|outcome| appended(outcome).0.seq).collect::<Vec<_>>(),
        (1..=100).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn the_largest_batch_fits_its_request_and_its_answer() {
    let cluster = HistoryCluster::start().await;
    cluster.create("lobby").await;
    let attributes = |key| [(format!("{key:064}"), "v".repeat(4096 - 64))].into();
    let requests = (0..100).map(|key| pb::AppendMessageRequest {
        attributes: attributes(key),
        ..text("lobby", "ada", &key.to_string(), &"x".repeat(32 * 1024))
    });

    let outcomes = cluster.batch(requests.collect()).await.unwrap();

    assert_eq!(outcomes.len(), 100);
    assert_eq!(cluster.truth("lobby").await.len(), 100);
}

/// Writers list the conversations in the same, in reverse or in random order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_over_the_same_conversations_do_not_deadlock() {
    const ROUNDS: usize = 40;
    let cluster = HistoryCluster::start_two().await;
    let conversations = ["a", "b", "c", "d", "e"];
    for conversation in conversations {
        cluster.create(conversation).await;
    }

    let mut writers = JoinSet::new();
    for writer in 0..6 {
        let client = cluster.client(writer % 2);
        writers.spawn(async move {
            for round in 0..ROUNDS {
                let mut order = conversations;
                match writer {
                    0 => {}
                    1 => order.reverse(),
                    _ => order.shuffle(&mut rand::rng()),
                }
                let key = format!("{writer}-{round}");
                let requests = order.iter().map(|conversation| text(conversation, "ada", &key, "x")).collect();
                for outcome in client.batch(requests).await.unwrap() {
                    assert!(!appended(&outcome).1);
                }
            }
        });
    }
    writers.join_all().await;

    for conversation in conversations {
        assert_eq!(cluster.truth(conversation).await.len(), 6 * ROUNDS);
    }
    assert_eq!(cluster.count("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").await, 0);
}
