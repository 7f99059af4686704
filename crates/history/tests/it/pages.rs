//! ListMessages: pages in both directions, from the tail, from Postgres and from both, without
//! gaps.

use tidings_proto::history as pb;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::client::{Anchor, HistoryClient, Source, at, newest, newest_with_min_seq, source, text};
use crate::support::{HistoryCluster, assert_numbered_from, seqs};

/// Appends messages until `stop`, and returns their number.
fn append_meanwhile(client: HistoryClient, stop: CancellationToken) -> JoinHandle<usize> {
    tokio::spawn(async move {
        let mut count = 0;
        while !stop.is_cancelled() {
            client.say("lobby", "bob", &format!("meanwhile-{count}")).await;
            count += 1;
        }
        count
    })
}

fn next(request: &pb::ListMessagesRequest, token: &str) -> pb::ListMessagesRequest {
    pb::ListMessagesRequest { anchor: None, page_token: token.to_owned(), ..request.clone() }
}

/// Reads from a page back to the oldest message.
async fn read_back(client: &HistoryClient, mut request: pb::ListMessagesRequest) -> Vec<pb::Message> {
    let mut read = Vec::new();
    loop {
        let mut page = client.list(request.clone()).await.unwrap();
        assert!(page.messages.len() <= request.page_size as usize);
        page.messages.append(&mut read);
        read = page.messages;
        if page.older_page_token.is_empty() {
            return read;
        }
        request = next(&request, &page.older_page_token);
    }
}

/// Reads from a page forward to the newest message.
async fn read_forward(client: &HistoryClient, mut request: pb::ListMessagesRequest) -> Vec<pb::Message> {
    let mut read = Vec::new();
    loop {
        let page = client.list(request.clone()).await.unwrap();
        read.extend(page.messages);
        if page.newer_page_token.is_empty() {
            assert_eq!(read.last().unwrap().seq, page.last_seq);
            return read;
        }
        request = next(&request, &page.newer_page_token);
    }
}

/// Other writers append while the pages are read: backward, forward, and both ways from the middle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paging_by_tokens_returns_every_message_once() {
    let cluster = HistoryCluster::start_two().await;
    cluster.fill("lobby", 1_000).await;
    let stop = CancellationToken::new();
    let appending = append_meanwhile(cluster.client(1), stop.clone());

    for size in [7, 33, 50, 199, 200] {
        let back = read_back(&cluster, newest("lobby", size)).await;
        assert_numbered_from(1, &back);
        assert!(back.len() >= 1_000);

        let forward = read_forward(&cluster, at("lobby", Anchor::AfterSeq(0), size)).await;
        assert_numbered_from(1, &forward);
        assert!(forward.len() >= back.len());

        let middle = at("lobby", Anchor::AroundSeq(501), size);
        let (older, newer) = (read_back(&cluster, middle.clone()).await, read_forward(&cluster, middle).await);
        assert_numbered_from(1, &older);
        assert!(older.last().unwrap().seq >= newer[0].seq);
        assert_numbered_from(newer[0].seq, &newer);
    }

    stop.cancel();
    let appended = appending.await.unwrap();
    let truth = cluster.truth("lobby").await;
    assert_eq!(truth.len(), 1_000 + appended);
    cluster.wait_until_relayed().await;
    assert_eq!(read_back(&cluster, newest("lobby", 77)).await, truth);
    assert_eq!(read_forward(&cluster, at("lobby", Anchor::AfterSeq(0), 77)).await, truth);
}

/// A writer commits messages around that seq while the page is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_around_a_future_seq_has_no_gap() {
    let cluster = HistoryCluster::start().await;
    cluster.fill("lobby", 30).await;
    let (client, stop) = (cluster.client(0), CancellationToken::new());
    let stopped = stop.clone();
    let appending = tokio::spawn(async move {
        for batch in 0.. {
            let requests = (0..10).map(|key| text("lobby", "bob", &format!("{batch}-{key}"), "x"));
            client.batch(requests.collect()).await.unwrap();
            if stopped.is_cancelled() {
                return;
            }
        }
    });

    for _ in 0..200 {
        let head = cluster.conversation("lobby").await.unwrap().last_seq;
        let page = cluster.list(at("lobby", Anchor::AroundSeq(head + 4), 20)).await.unwrap();
        assert!(!page.messages.is_empty());
    }
    stop.cancel();
    appending.await.unwrap();
}

#[tokio::test]
async fn every_anchor_returns_its_page() {
    let cluster = HistoryCluster::start().await;
    cluster.fill("lobby", 300).await;
    cluster.newest("lobby", 1).await; // loads the tail: 101 to 300
    let cases = [
        (Anchor::AfterSeq(0), 1..=10),
        (Anchor::AfterSeq(95), 96..=105),   // across the lower end of the tail
        (Anchor::AfterSeq(150), 151..=160), // in the tail
        (Anchor::AfterSeq(295), 296..=300),
        (Anchor::BeforeSeq(5), 1..=4),
        (Anchor::BeforeSeq(50), 40..=49),
        (Anchor::BeforeSeq(105), 95..=104), // across the lower end of the tail
        (Anchor::BeforeSeq(101), 91..=100),
        (Anchor::BeforeSeq(102), 92..=101),
        (Anchor::BeforeSeq(300), 290..=299),
        (Anchor::BeforeSeq(1_000), 291..=300),
        (Anchor::BeforeSeq(i64::MAX), 291..=300),
        (Anchor::AroundSeq(1), 1..=5),
        (Anchor::AroundSeq(100), 95..=104),
        (Anchor::AroundSeq(300), 295..=300),
        (Anchor::AroundSeq(1_000), 296..=300),
    ];
    for (anchor, expected) in cases {
        let page = cluster.list(at("lobby", anchor, 10)).await.unwrap();
        assert_eq!(seqs(&page.messages), expected.clone().collect::<Vec<_>>(), "{anchor:?}");
        assert_eq!(page.last_seq, 300);
        assert_eq!(page.older_page_token.is_empty(), *expected.start() == 1, "{anchor:?}");
        assert_eq!(page.newer_page_token.is_empty(), *expected.end() == 300, "{anchor:?}");
    }
}

/// A token is absent only where no message exists in that direction.
#[tokio::test]
async fn an_empty_page_has_tokens_for_both_directions() {
    let cluster = HistoryCluster::start().await;
    cluster.fill("lobby", 10).await;
    for cached in [false, true] {
        let before = cluster.list(at("lobby", Anchor::BeforeSeq(1), 3)).await.unwrap();
        assert!(before.messages.is_empty() && before.older_page_token.is_empty());
        let page = cluster.list(next(&newest("lobby", 3), &before.newer_page_token)).await.unwrap();
        assert_eq!(seqs(&page.messages), [1, 2, 3]);

        for after in [10, 11, i64::MAX] {
            let after = cluster.list(at("lobby", Anchor::AfterSeq(after), 3)).await.unwrap();
            assert!(after.messages.is_empty() && after.newer_page_token.is_empty());
            assert_eq!((after.last_seq, source(after.read_info) == Source::Redis), (10, cached));
            let page = cluster.list(next(&newest("lobby", 3), &after.older_page_token)).await.unwrap();
            assert_eq!(seqs(&page.messages), [8, 9, 10]);
        }
        cluster.newest("lobby", 3).await;
    }
}

#[tokio::test]
async fn a_conversation_without_messages_has_an_empty_page() {
    let cluster = HistoryCluster::start().await;
    cluster.create("lobby").await;

    for request in [newest("lobby", 5), at("lobby", Anchor::AfterSeq(0), 5), at("lobby", Anchor::BeforeSeq(7), 5)] {
        for _ in 0..2 {
            let page = cluster.list(request.clone()).await.unwrap();
            assert_eq!((page.messages.len(), page.last_seq), (0, 0));
            assert!(page.older_page_token.is_empty() && page.newer_page_token.is_empty());
        }
    }
    cluster.say("lobby", "ada", "first").await;
    assert_eq!(seqs(&cluster.newest("lobby", 5).await.messages), [1]);
}

#[tokio::test]
async fn a_page_is_trimmed_to_its_bytes_far_from_its_anchor() {
    let cluster = HistoryCluster::start().await;
    cluster.create("lobby").await;
    let sizes = [10, 2_000, 30_000, 10, 5_000, 10, 32 * 1024, 2_000, 10];
    for (key, size) in sizes.into_iter().enumerate() {
        cluster.append(text("lobby", "ada", &key.to_string(), &"x".repeat(size))).await.unwrap();
    }
    let limited = |anchor, max_bytes| pb::ListMessagesRequest { anchor, max_bytes, ..newest("lobby", 50) };
    let cases = [
        (None, 4_000, vec![8, 9]),
        (None, 1, vec![9]),
        (Some(Anchor::BeforeSeq(7)), 6_000, vec![4, 5, 6]),
        (Some(Anchor::BeforeSeq(8)), 100, vec![7]),
        (Some(Anchor::AfterSeq(0)), 4_000, vec![1, 2]),
        (Some(Anchor::AfterSeq(2)), 100, vec![3]),
        (Some(Anchor::AroundSeq(5)), 6_000, vec![4, 5, 6]),
    ];
    for _ in 0..2 {
        for (anchor, bytes, expected) in &cases {
            let page = cluster.list(limited(*anchor, *bytes)).await.unwrap();
            assert_eq!(&seqs(&page.messages), expected, "{anchor:?}");
        }
    }
    for bytes in [1, 5_000, 40_000] {
        let request = pb::ListMessagesRequest { max_bytes: bytes, ..newest("lobby", 50) };
        assert_eq!(read_back(&cluster, request.clone()).await.len(), sizes.len());
        let request = pb::ListMessagesRequest { anchor: Some(Anchor::AfterSeq(0)), ..request };
        assert_eq!(read_forward(&cluster, request).await.len(), sizes.len());
    }
}

#[tokio::test]
async fn a_page_never_answers_with_less_than_min_seq() {
    let cluster = HistoryCluster::start().await;
    cluster.fill("lobby", 10).await;

    for _ in 0..2 {
        assert_eq!(cluster.list(newest_with_min_seq("lobby", 10, 3)).await.unwrap().last_seq, 10);
        for min_seq in [11, i64::MAX] {
            let failure = cluster.list(newest_with_min_seq("lobby", min_seq, 3)).await.unwrap_err();
            assert_eq!((failure.code, failure.reason.as_str()), (tonic::Code::FailedPrecondition, "SEQ_AHEAD"));
            assert_eq!(failure.metadata["last_seq"], "10");
        }
    }
}
