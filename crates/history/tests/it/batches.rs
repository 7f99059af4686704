//! Batches: one transaction, an outcome for each item.

use std::collections::BTreeMap;

use rand::seq::SliceRandom as _;
use tidings_proto::history as pb;
use tidings_proto::history::ErrorReason;
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::client::{done, refused, text};
use crate::support::{Histories, assert_numbered_from};

#[tokio::test]
async fn numbers_are_in_the_order_of_the_request_over_several_conversations() {
    let histories = Histories::start().await;
    histories.fill("hall", 2).await;
    histories.create("lobby").await;

    let places = ["lobby", "hall", "lobby"];
    let requests: Vec<_> = (0..9).map(|key| text(places[key % 3], "ada", &key.to_string(), "x")).collect();
    let outcomes = histories.batch(requests.clone()).await.unwrap();

    let mut numbers: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for (request, outcome) in requests.iter().zip(&outcomes) {
        let (message, deduplicated) = done(outcome);
        assert!(!deduplicated);
        assert_eq!(message.client_message_id, request.client_message_id);
        assert_eq!(message.conversation_id, request.conversation_id);
        numbers.entry(&message.conversation_id).or_default().push(message.seq);
    }
    assert_eq!(numbers["lobby"], [1, 2, 3, 4, 5, 6]);
    assert_eq!(numbers["hall"], [3, 4, 5]);
    assert_numbered_from(1, &histories.truth("lobby").await);
    assert_numbered_from(1, &histories.truth("hall").await);
}

#[tokio::test]
async fn two_items_with_one_key_and_one_content_are_one_message() {
    let histories = Histories::start().await;
    histories.create("lobby").await;
    let twin = text("lobby", "ada", "twin", "hello");

    let outcomes = histories.batch(vec![twin.clone(), text("lobby", "ada", "b", "b"), twin.clone()]).await.unwrap();

    assert_eq!(done(&outcomes[0]).0, done(&outcomes[2]).0);
    assert_eq!([0, 1, 2].map(|place: usize| done(&outcomes[place]).1), [false, false, true]);
    assert_eq!(histories.truth("lobby").await.len(), 2);
    let again = histories.batch(vec![twin.clone(), twin]).await.unwrap();
    assert!(again.iter().all(|outcome| done(outcome) == (done(&outcomes[0]).0, true)));
}

#[tokio::test]
async fn two_items_with_one_key_and_other_content_are_one_message_and_one_refusal() {
    let histories = Histories::start().await;
    histories.fill("lobby", 1).await;

    let requests = vec![text("lobby", "ada", "twin", "a"), text("lobby", "ada", "twin", "b")];
    let outcomes = histories.batch(requests).await.unwrap();

    assert_eq!(done(&outcomes[0]).0.seq, 2);
    assert_eq!(refused(&outcomes[1]), (ErrorReason::ClientMessageIdReused, 2));
}

#[tokio::test]
async fn an_item_that_is_refused_does_not_hold_up_the_others() {
    let histories = Histories::start().await;
    histories.fill("lobby", 2).await;

    let reply = |key, seq| pb::AppendMessageRequest { reply_to_seq: seq, ..text("lobby", "bob", key, "x") };
    let requests = vec![
        text("nowhere", "ada", "1", "x"),
        text("lobby", "ada", "fill-1", "another content"),
        reply("a", 3),
        text("lobby", "bob", "b", "x"),
        reply("c", 3), // the item before it
        text("lobby", "ada", "fill-2", "fill-2"),
    ];
    let outcomes = histories.batch(requests).await.unwrap();

    assert_eq!(refused(&outcomes[0]), (ErrorReason::ConversationNotFound, 0));
    assert_eq!(refused(&outcomes[1]), (ErrorReason::ClientMessageIdReused, 1));
    assert_eq!(refused(&outcomes[2]), (ErrorReason::ReplyTargetNotFound, 2));
    assert_eq!(done(&outcomes[3]).0.seq, 3);
    assert_eq!(done(&outcomes[4]).0.seq, 4);
    assert_eq!((done(&outcomes[5]).0.seq, done(&outcomes[5]).1), (2, true));
    assert_eq!(histories.truth("lobby").await.len(), 4);
}

#[tokio::test]
async fn a_hundred_items_are_a_batch_and_a_hundred_and_one_are_refused() {
    let histories = Histories::start().await;
    histories.create("lobby").await;
    let requests = |count: usize| (0..count).map(|key| text("lobby", "ada", &key.to_string(), "x")).collect();

    let failure = histories.batch(requests(101)).await.unwrap_err();
    assert_eq!((failure.code, failure.violations[0].field.as_str()), (Code::InvalidArgument, "requests"));
    let failure = histories.batch(Vec::new()).await.unwrap_err();
    assert_eq!((failure.code, failure.violations[0].field.as_str()), (Code::InvalidArgument, "requests"));
    assert!(histories.truth("lobby").await.is_empty());

    let outcomes = histories.batch(requests(100)).await.unwrap();
    assert_eq!(outcomes.iter().map(|outcome| done(outcome).0.seq).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_largest_batch_fits_its_request_and_its_answer() {
    let histories = Histories::start().await;
    histories.create("lobby").await;
    let attributes = |key| [(format!("{key:064}"), "v".repeat(4096 - 64))].into();
    let requests = (0..100).map(|key| pb::AppendMessageRequest {
        attributes: attributes(key),
        ..text("lobby", "ada", &key.to_string(), &"x".repeat(32 * 1024))
    });

    let outcomes = histories.batch(requests.collect()).await.unwrap();

    assert_eq!(outcomes.len(), 100);
    assert_eq!(histories.truth("lobby").await.len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_over_the_same_conversations_in_any_order_do_not_deadlock() {
    const ROUNDS: usize = 40;
    let histories = Histories::start_two().await;
    let conversations = ["a", "b", "c", "d", "e"];
    for conversation in conversations {
        histories.create(conversation).await;
    }

    let mut writers = JoinSet::new();
    for writer in 0..6 {
        let client = histories.client(writer % 2);
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
                    assert!(!done(&outcome).1);
                }
            }
        });
    }
    writers.join_all().await;

    for conversation in conversations {
        assert_eq!(histories.truth(conversation).await.len(), 6 * ROUNDS);
    }
    assert_eq!(histories.count("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").await, 0);
}
