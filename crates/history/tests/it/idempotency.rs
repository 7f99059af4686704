//! Idempotency: one key is one message, however often, late or concurrently it is appended.

use std::time::Duration;

use tidings_proto::history as pb;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Code;

use crate::support::HistoryCluster;
use crate::support::client::text;

/// 64 calls over two instances: one appends the message, the others are deduplicated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_appends_with_one_key_make_one_row() {
    let cluster = HistoryCluster::start_two().await;
    cluster.fill("lobby", 5).await;

    let mut appends = JoinSet::new();
    for index in 0..64 {
        let client = cluster.client(index % 2);
        appends.spawn(async move { client.append(text("lobby", "ada", "once", "hello")).await.unwrap() });
    }
    let responses = appends.join_all().await;

    assert_eq!(responses.iter().filter(|response| !response.deduplicated).count(), 1);
    assert!(responses.iter().all(|response| response.message == responses[0].message));
    assert_eq!(responses[0].message.as_ref().unwrap().seq, 6);
    assert_eq!(cluster.count("SELECT count(*) FROM message").await, 6);
    assert_eq!(cluster.truth("lobby").await[5], *responses[0].message.as_ref().unwrap());
}

#[tokio::test]
async fn the_same_key_with_other_content_is_refused_with_its_seq() {
    let cluster = HistoryCluster::start().await;
    cluster.fill("lobby", 2).await;
    let first = text("lobby", "ada", "once", "hello");
    cluster.append(first.clone()).await.unwrap();

    let others = [
        text("lobby", "ada", "once", "hello!"),
        pb::AppendMessageRequest { reply_to_seq: 1, ..first.clone() },
        pb::AppendMessageRequest { reply_to_seq: 99, ..first.clone() },
        pb::AppendMessageRequest { attributes: [("a".to_owned(), String::new())].into(), ..first.clone() },
    ];
    for other in others {
        let failure = cluster.append(other).await.unwrap_err();
        assert_eq!((failure.code, failure.reason.as_str()), (Code::AlreadyExists, "CLIENT_MESSAGE_ID_REUSED"));
        assert_eq!(failure.metadata["seq"], "3");
    }
    assert_eq!(cluster.truth("lobby").await.len(), 3);
}

#[tokio::test]
async fn a_key_belongs_to_its_sender_in_its_conversation() {
    let cluster = HistoryCluster::start().await;
    cluster.create("lobby").await;
    cluster.create("hall").await;

    let requests = [text("lobby", "ada", "1", "a"), text("lobby", "bob", "1", "b"), text("hall", "ada", "1", "c")];
    for request in requests {
        assert!(!cluster.append(request).await.unwrap().deduplicated);
    }
    assert_eq!((cluster.truth("lobby").await.len(), cluster.truth("hall").await.len()), (2, 1));
}

#[tokio::test]
async fn a_retry_after_the_answer_was_lost_returns_the_same_message() {
    let cluster = HistoryCluster::start_two().await;
    cluster.create("lobby").await;
    let request = text("lobby", "ada", "once", "hello");

    // The caller cancels the call after various times and retries through another instance.
    let mut messages = Vec::new();
    for limit in [0, 1, 2, 5, 10, 20, 1_000] {
        let _ = timeout(Duration::from_millis(limit), cluster.client(0).append(request.clone())).await;
        messages.push(cluster.client(1).append(request.clone()).await.unwrap().message.unwrap());
    }

    assert!(messages.iter().all(|message| *message == messages[0]));
    assert_eq!(cluster.truth("lobby").await, messages[..1]);
    let late = cluster.append(request).await.unwrap();
    assert!(late.deduplicated);
    assert_eq!(late.message.unwrap(), messages[0]);
}

/// The statements find a duplicate by its key, without reading the other messages of the
/// conversation.
#[tokio::test]
async fn an_append_does_not_read_a_long_conversation() {
    let mut cluster = HistoryCluster::start().await;
    // One long conversation among many: a plan that looks up messages by conversation would read it
    // all.
    let rows = "WITH conversations AS (
            INSERT INTO conversation (id, kind, title, attributes, last_seq, fingerprint)
            SELECT 'c' || n, 3, '', '{}', CASE n WHEN 1 THEN 20000 ELSE 5 END, '' FROM generate_series(1, 4000) AS n
            RETURNING no, last_seq
        ), messages AS (
            INSERT INTO message (conversation_no, seq, id, sender_id, client_message_id, fingerprint, body_text,
                                 reply_to_seq, attributes, create_time)
            SELECT no, seq, gen_random_uuid(), 'bob', 'k' || seq, '', '', 0, '{}', now()
            FROM conversations, generate_series(1, last_seq) AS seq
            RETURNING 1
        )
        SELECT count(*) FROM messages";
    assert_eq!(cluster.count(rows).await, 20_000 + 3_999 * 5);
    cluster.analyze().await;
    cluster.restart(0).await;
    let before = cluster.messages_read().await;

    for key in ["once", "once", "twice"] {
        cluster.append(text("c1", "ada", key, "hello")).await.unwrap();
    }

    cluster.restart(0).await; // a backend reports its statistics when it exits
    let read = cluster.messages_read().await - before;
    assert!(read < 20, "two appends and a retry read {read} messages");
}
