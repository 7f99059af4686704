//! Repeats: one key is one message, whoever asks, however often and however late.

use std::time::Duration;

use tidings_proto::history as pb;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Code;

use crate::support::Histories;
use crate::support::client::text;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_concurrent_appends_with_one_key_make_one_row() {
    let histories = Histories::start_two().await;
    histories.fill("lobby", 5).await;

    let mut appends = JoinSet::new();
    for place in 0..64 {
        let client = histories.client(place % 2);
        appends.spawn(async move { client.append(text("lobby", "ada", "once", "hello")).await.unwrap() });
    }
    let answers = appends.join_all().await;

    assert_eq!(answers.iter().filter(|answer| !answer.deduplicated).count(), 1);
    assert!(answers.iter().all(|answer| answer.message == answers[0].message));
    assert_eq!(answers[0].message.as_ref().unwrap().seq, 6);
    assert_eq!(histories.count("SELECT count(*) FROM message").await, 6);
    assert_eq!(histories.truth("lobby").await[5], *answers[0].message.as_ref().unwrap());
}

#[tokio::test]
async fn the_same_key_with_any_other_content_is_refused_with_its_number() {
    let histories = Histories::start().await;
    histories.fill("lobby", 2).await;
    let first = text("lobby", "ada", "once", "hello");
    histories.append(first.clone()).await.unwrap();

    let others = [
        text("lobby", "ada", "once", "hello!"),
        pb::AppendMessageRequest { reply_to_seq: 1, ..first.clone() },
        pb::AppendMessageRequest { reply_to_seq: 99, ..first.clone() },
        pb::AppendMessageRequest { attributes: [("a".to_owned(), String::new())].into(), ..first.clone() },
    ];
    for other in others {
        let failure = histories.append(other).await.unwrap_err();
        assert_eq!((failure.code, failure.reason.as_str()), (Code::AlreadyExists, "CLIENT_MESSAGE_ID_REUSED"));
        assert_eq!(failure.metadata["seq"], "3");
    }
    assert_eq!(histories.truth("lobby").await.len(), 3);
}

#[tokio::test]
async fn a_key_belongs_to_its_sender_in_its_conversation() {
    let histories = Histories::start().await;
    histories.create("lobby").await;
    histories.create("hall").await;

    let requests = [text("lobby", "ada", "1", "a"), text("lobby", "bob", "1", "b"), text("hall", "ada", "1", "c")];
    for request in requests {
        assert!(!histories.append(request).await.unwrap().deduplicated);
    }
    assert_eq!((histories.truth("lobby").await.len(), histories.truth("hall").await.len()), (2, 1));
}

#[tokio::test]
async fn a_retry_after_the_answer_was_lost_returns_the_same_message() {
    let histories = Histories::start_two().await;
    histories.create("lobby").await;
    let request = text("lobby", "ada", "once", "hello");

    // The caller goes away at various moments of the call, and asks another instance again.
    let mut numbers = Vec::new();
    for patience in [0, 1, 2, 5, 10, 20, 1_000] {
        let _ = timeout(Duration::from_millis(patience), histories.client(0).append(request.clone())).await;
        numbers.push(histories.client(1).append(request.clone()).await.unwrap().message.unwrap());
    }

    assert!(numbers.iter().all(|message| *message == numbers[0]));
    assert_eq!(histories.truth("lobby").await, numbers[..1]);
    let late = histories.append(request).await.unwrap();
    assert!(late.deduplicated);
    assert_eq!(late.message.unwrap(), numbers[0]);
}

#[tokio::test]
async fn a_long_conversation_makes_no_append_read_it() {
    let mut histories = Histories::start().await;
    // One conversation of very many: that is where a plan that looks a message up by its conversation reads all of it.
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
    assert_eq!(histories.count(rows).await, 20_000 + 3_999 * 5);
    histories.analyze().await;
    histories.restart(0).await;
    let before = histories.messages_read().await;

    for key in ["once", "once", "twice"] {
        histories.append(text("c1", "ada", key, "hello")).await.unwrap();
    }

    histories.restart(0).await; // a backend tells what it did when it ends
    let read = histories.messages_read().await - before;
    assert!(read < 20, "{read} messages read by two appends and a repeat");
}
