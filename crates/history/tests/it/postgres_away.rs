//! Postgres away: unavailable, or stale and said so; nothing half done.

use std::time::Duration;

use tidings_devstack::Devstack;
use tidings_proto::history as pb;
use tonic::Code;

use crate::support::client::{Anchor, Answer, Source, at, knowing, newest, open, source, text};
use crate::support::{Histories, eventually, own_stack};

/// The time-outs of production: what is tested is how long they take.
async fn start(stack: &Devstack) -> Histories<'_> {
    let histories = Histories::start_on(stack, 1, |_, config| {
        config.postgres = tidings_postgres::Args::new(config.postgres.postgres_url.clone());
    })
    .await;
    histories.fill("lobby", 20).await;
    histories.fill("cold", 5).await;
    histories.fill("long", 300).await;
    for conversation in ["lobby", "long"] {
        histories.newest(conversation, 10).await;
    }
    histories.settled().await;
    histories
}

/// Whether the answer is that the store is away; any other refusal must say when to try again.
fn is_away<T: std::fmt::Debug>(answer: Answer<T>) -> bool {
    let failure = answer.unwrap_err();
    assert!(matches!(failure.code, Code::Unavailable | Code::ResourceExhausted), "{failure}");
    assert!(failure.retry_after.is_some_and(|delay| delay > Duration::ZERO), "{failure}");
    (failure.code, failure.reason.as_str()) == (Code::Unavailable, "STORE_AWAY")
}

async fn assert_unavailable_or_stale(histories: &Histories<'_>, key: &str) {
    eventually("appends are unavailable", async || is_away(histories.append(text("lobby", "ada", key, "x")).await))
        .await;
    eventually("the newest page is said to be stale", async || {
        let page = histories.newest("lobby", 10).await;
        assert_eq!((source(page.read_info), page.messages.len(), page.last_seq), (Source::Redis, 10, 20));
        page.read_info.unwrap().stale
    })
    .await;

    let all = histories.newest("lobby", 200).await;
    assert_eq!((all.messages.len(), all.read_info.unwrap().stale), (20, true));
    // More than the tail has: as much as it has, and where it goes on.
    let long = histories.newest("long", 200).await;
    assert_eq!((long.messages.len(), long.read_info.unwrap().stale), (200, true));
    let older = histories.list(at("long", Anchor::BeforeSeq(150), 200)).await.unwrap();
    assert_eq!((older.messages.len(), older.read_info.unwrap().stale), (49, true));
    assert!(!older.older_page_token.is_empty());

    assert!(is_away(histories.list(newest("cold", 5)).await));
    assert!(is_away(histories.list(knowing("lobby", 21, 5)).await));
    assert!(is_away(histories.list(at("long", Anchor::AfterSeq(3), 5)).await));
    assert!(is_away(histories.message("lobby", 1).await));
    assert!(is_away(histories.conversation("lobby").await));
    assert!(is_away(histories.create_as(open("hall")).await));
    assert!(is_away(histories.batch(vec![text("lobby", "ada", "batch", "x")]).await));
    let mine = pb::ListUserMessagesRequest { user_id: "ada".to_owned(), ..Default::default() };
    assert!(is_away(histories.authored(mine).await));
}

async fn assert_as_before(histories: &Histories<'_>, key: &str, expected: usize) {
    let request = text("lobby", "ada", key, "x");
    let first = histories.insist(request.clone()).await.message.unwrap();
    let again = histories.insist(request).await;
    assert_eq!((again.deduplicated, again.message.unwrap()), (true, first));
    histories.settled().await;
    let truth = histories.truth("lobby").await;
    assert_eq!(truth.iter().filter(|message| message.client_message_id == key).count(), 1);
    assert!(truth.len() <= expected, "{} messages", truth.len());
    eventually("pages are fresh", async || {
        let page = histories.insist_on_page(newest("lobby", 200)).await;
        !page.read_info.unwrap().stale && page.messages == truth
    })
    .await;
    assert_eq!(histories.insist_on_page(at("long", Anchor::AfterSeq(3), 5)).await.messages.len(), 5);
}

#[tokio::test]
async fn postgres_away_is_unavailable_with_retry_info_or_stale_and_said_so() {
    let stack = own_stack().await;
    let histories = start(&stack).await;

    stack.postgres().kill().await;
    assert_unavailable_or_stale(&histories, "killed").await;
    stack.postgres().start().await.unwrap();
    assert_as_before(&histories, "killed", 21).await;
    drop(histories);
    stack.stop().await;
}

#[tokio::test]
async fn postgres_that_hangs_is_away_too() {
    let stack = own_stack().await;
    let histories = start(&stack).await;

    stack.postgres().pause();
    assert_unavailable_or_stale(&histories, "paused").await;
    stack.postgres().resume();
    // A batch that we gave up may have been committed yet: that is what its keys are for.
    assert_as_before(&histories, "paused", 22).await;
    drop(histories);
    stack.stop().await;
}
