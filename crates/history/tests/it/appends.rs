//! Appends of single messages, and reads of them.

use tidings_proto::history as pb;
use tonic::Code;

use crate::support::client::{Anchor, Source, at, binary, newest, source, text};
use crate::support::{HistoryCluster, assert_numbered_from};

/// One message for each kind of content.
fn samples() -> Vec<pb::AppendMessageRequest> {
    let attributes = [("line".to_owned(), "7".to_owned()), ("nick".to_owned(), "Ada ✓".to_owned())];
    vec![
        text("lobby", "ada", "text", "good morning, \u{1f30d}"),
        text("lobby", "ada", "empty", ""),
        pb::AppendMessageRequest {
            body: Some(binary(vec![0, 255, 10, 0], "image/png")),
            ..text("lobby", "ada", "binary", "")
        },
        pb::AppendMessageRequest {
            body: Some(binary(Vec::new(), "application/x-nothing")),
            ..text("lobby", "ada", "no-bytes", "")
        },
        pb::AppendMessageRequest { attributes: attributes.into(), ..text("lobby", "bob", "attributes", "x") },
        pb::AppendMessageRequest { reply_to_seq: 2, ..text("lobby", "bob", "reply", "yes") },
    ]
}

/// The longest legal text with the most legal attributes.
fn largest() -> pb::AppendMessageRequest {
    let attributes = (0..32).map(|number| (format!("{number:064}"), "v".repeat(64)));
    pb::AppendMessageRequest {
        attributes: attributes.collect(),
        ..text("lobby", "ada", "largest", &"é".repeat(16 * 1024))
    }
}

/// Rebuilds the request that a message was appended with.
fn request_of(message: &pb::Message) -> pb::AppendMessageRequest {
    pb::AppendMessageRequest {
        conversation_id: message.conversation_id.clone(),
        sender_id: message.sender_id.clone(),
        client_message_id: message.client_message_id.clone(),
        body: message.body.clone(),
        reply_to_seq: message.reply_to_seq,
        attributes: message.attributes.clone(),
    }
}

/// Postgres, the tail and the response of the append have the same message.
#[tokio::test]
async fn every_reader_gets_the_message_that_was_sent() {
    let cluster = HistoryCluster::start().await;
    cluster.create("lobby").await;
    let sent: Vec<_> = samples().into_iter().chain([largest()]).chain(more_samples()).collect();

    let mut appended = Vec::new();
    for request in &sent {
        let response = cluster.append(request.clone()).await.unwrap();
        assert!(!response.deduplicated);
        appended.push(response.message.unwrap());
    }

    assert_numbered_from(1, &appended);
    assert_eq!(appended.iter().map(request_of).collect::<Vec<_>>(), sent);
    for message in &appended {
        assert_eq!((message.state(), message.edit_version, message.change_seq), (pb::message::State::Active, 1, 0));
        assert_eq!(&cluster.message("lobby", message.seq).await.unwrap(), message);
    }
    let loaded = cluster.newest("lobby", 200).await;
    let cached = cluster.newest("lobby", 3).await;
    assert_eq!((source(loaded.read_info), source(cached.read_info)), (Source::Postgres, Source::Redis));
    assert_eq!(loaded.messages, appended);
    assert_eq!(cached.messages, appended[appended.len() - 3..]);
    assert_eq!(cluster.truth("lobby").await, appended);
    let conversation = cluster.conversation("lobby").await.unwrap();
    assert_eq!((conversation.last_seq, conversation.version), (sent.len() as i64, 1));
}

/// The samples under other keys: short messages, so that the tail is not empty after the largest.
fn more_samples() -> Vec<pb::AppendMessageRequest> {
    let mut samples = samples();
    for sample in &mut samples {
        sample.client_message_id.push_str("-again");
    }
    samples
}

#[tokio::test]
async fn a_reply_to_an_absent_message_is_refused_with_the_newest_seq() {
    let cluster = HistoryCluster::start().await;
    cluster.fill("lobby", 3).await;

    let reply = |seq| pb::AppendMessageRequest { reply_to_seq: seq, ..text("lobby", "bob", "reply", "yes") };
    for seq in [4, 5, i64::MAX] {
        let failure = cluster.append(reply(seq)).await.unwrap_err();
        assert_eq!((failure.code, failure.reason.as_str()), (Code::FailedPrecondition, "REPLY_TARGET_NOT_FOUND"));
        assert_eq!(failure.metadata["last_seq"], "3");
    }
    let appended = cluster.append(reply(3)).await.unwrap();
    assert_eq!(appended.message.unwrap().seq, 4);
}

#[tokio::test]
async fn a_conversation_must_be_created_before_it_is_written_or_read() {
    let cluster = HistoryCluster::start().await;

    let failures = [
        cluster.append(text("nowhere", "ada", "1", "x")).await.unwrap_err(),
        cluster.message("nowhere", 1).await.unwrap_err(),
        cluster.list(newest("nowhere", 10)).await.unwrap_err(),
        cluster.list(newest("nowhere", 10)).await.unwrap_err(), // the lease is held now
        cluster.list(at("nowhere", Anchor::AfterSeq(0), 10)).await.unwrap_err(),
        cluster.list(at("nowhere", Anchor::BeforeSeq(9), 10)).await.unwrap_err(),
        cluster.list(at("nowhere", Anchor::AroundSeq(9), 10)).await.unwrap_err(),
    ];

    for failure in failures {
        assert_eq!((failure.code, failure.reason.as_str()), (Code::NotFound, "CONVERSATION_NOT_FOUND"));
    }
}

/// The error carries the newest seq in its metadata.
#[tokio::test]
async fn an_absent_message_is_not_found_with_the_newest_seq() {
    let cluster = HistoryCluster::start().await;
    cluster.fill("lobby", 3).await;

    for seq in [4, 1_000, i64::MAX] {
        let failure = cluster.message("lobby", seq).await.unwrap_err();
        assert_eq!((failure.code, failure.reason.as_str()), (Code::NotFound, "MESSAGE_NOT_FOUND"));
        assert_eq!(failure.metadata["last_seq"], "3");
    }
}
