//! Postgres unavailable: calls fail with UNAVAILABLE or return stale pages, and no write is half
//! done.

use std::time::Duration;

use tidings_devstack::Devstack;
use tidings_devstack::testing::{eventually, own_stack};
use tidings_proto::history as pb;
use tonic::Code;

use crate::support::HistoryCluster;
use crate::support::client::{Anchor, CallResult, Source, at, newest, newest_with_min_seq, open, source, text};

/// Starts the service with the default timeouts of Postgres: the tests depend on them.
async fn start(stack: &Devstack) -> HistoryCluster<'_> {
    let cluster = HistoryCluster::start_on(stack, 1, |_, config| {
        config.postgres = tidings_postgres::Args::new(config.postgres.postgres_url.clone());
    })
    .await;
    cluster.fill("lobby", 20).await;
    cluster.fill("cold", 5).await;
    cluster.fill("long", 300).await;
    for conversation in ["lobby", "long"] {
        cluster.newest(conversation, 10).await;
    }
    cluster.wait_until_relayed().await;
    cluster
}

/// Returns true if the call failed with STORE_AWAY. Checks that any failure is retryable with a
/// delay.
fn is_away<T: std::fmt::Debug>(result: CallResult<T>) -> bool {
    let failure = result.unwrap_err();
    assert!(matches!(failure.code, Code::Unavailable | Code::ResourceExhausted), "{failure}");
    assert!(failure.retry_after.is_some_and(|delay| delay > Duration::ZERO), "{failure}");
    (failure.code, failure.reason.as_str()) == (Code::Unavailable, "STORE_AWAY")
}

async fn assert_unavailable_or_stale(cluster: &HistoryCluster<'_>, key: &str) {
    eventually("appends are unavailable", async || is_away(cluster.append(text("lobby", "ada", key, "x")).await)).await;
    eventually("the newest page is marked stale", async || {
        let page = cluster.newest("lobby", 10).await;
        assert_eq!((source(page.read_info), page.messages.len(), page.last_seq), (Source::Redis, 10, 20));
        page.read_info.unwrap().stale
    })
    .await;

    let all = cluster.newest("lobby", 200).await;
    assert_eq!((all.messages.len(), all.read_info.unwrap().stale), (20, true));
    // A page beyond the tail has the messages of the tail, and a token for the older ones.
    let long = cluster.newest("long", 200).await;
    assert_eq!((long.messages.len(), long.read_info.unwrap().stale), (200, true));
    let older = cluster.list(at("long", Anchor::BeforeSeq(150), 200)).await.unwrap();
    assert_eq!((older.messages.len(), older.read_info.unwrap().stale), (49, true));
    assert!(!older.older_page_token.is_empty());

    assert!(is_away(cluster.list(newest("cold", 5)).await));
    assert!(is_away(cluster.list(newest_with_min_seq("lobby", 21, 5)).await));
    assert!(is_away(cluster.list(at("long", Anchor::AfterSeq(3), 5)).await));
    assert!(is_away(cluster.message("lobby", 1).await));
    assert!(is_away(cluster.conversation("lobby").await));
    assert!(is_away(cluster.create_as(open("hall")).await));
    assert!(is_away(cluster.batch(vec![text("lobby", "ada", "batch", "x")]).await));
    let mine = pb::ListUserMessagesRequest { user_id: "ada".to_owned(), ..Default::default() };
    assert!(is_away(cluster.authored(mine).await));
}

async fn assert_as_before(cluster: &HistoryCluster<'_>, key: &str, expected: usize) {
    let request = text("lobby", "ada", key, "x");
    let first = cluster.append_with_retry(request.clone()).await.message.unwrap();
    let retry = cluster.append_with_retry(request).await;
    assert_eq!((retry.deduplicated, retry.message.unwrap()), (true, first));
    cluster.wait_until_relayed().await;
    let truth = cluster.truth("lobby").await;
    assert_eq!(truth.iter().filter(|message| message.client_message_id == key).count(), 1);
    assert!(truth.len() <= expected, "{} messages", truth.len());
    eventually("pages are fresh", async || {
        let page = cluster.list_with_retry(newest("lobby", 200)).await;
        !page.read_info.unwrap().stale && page.messages == truth
    })
    .await;
    assert_eq!(cluster.list_with_retry(at("long", Anchor::AfterSeq(3), 5)).await.messages.len(), 5);
}

/// Calls are UNAVAILABLE with a RetryInfo, except pages that the tail covers, which are marked
/// stale.
#[tokio::test]
async fn without_postgres_calls_are_unavailable_or_marked_stale() {
    let stack = own_stack().await;
    let cluster = start(&stack).await;

    stack.postgres().kill().await;
    assert_unavailable_or_stale(&cluster, "killed").await;
    stack.postgres().start().await.unwrap();
    assert_as_before(&cluster, "killed", 21).await;
    drop(cluster);
    stack.stop().await;
}

#[tokio::test]
async fn a_hanging_postgres_is_unavailable_too() {
    let stack = own_stack().await;
    let cluster = start(&stack).await;

    stack.postgres().pause();
    assert_unavailable_or_stale(&cluster, "paused").await;
    stack.postgres().resume();
    // The batch that timed out may have been committed after all.
    assert_as_before(&cluster, "paused", 22).await;
    drop(cluster);
    stack.stop().await;
}
