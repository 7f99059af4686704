//! A hot conversation whose tail is lost: it is found again while everybody writes and reads.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::support::client::{Source, knowing, newest, source, text};
use crate::support::{Histories, own_stack, seqs};

/// When the newest page has to come from Redis again; a debug build on a busy machine takes its time.
const SOON: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_conversation_is_read_from_redis_again_soon_after_redis_forgot_it() {
    let stack = own_stack().await;
    let histories = Histories::start_on(&stack, 2, |_, _| {}).await;
    histories.fill("lobby", 300).await;
    let redis = histories.redis().await;
    let stop = CancellationToken::new();
    let mut callers = JoinSet::new();
    for caller in 0..8 {
        let (client, stopped) = (histories.client(caller % 2), stop.clone());
        callers.spawn(async move {
            let mut key = 0;
            while !stopped.is_cancelled() {
                client.insist(text("lobby", &format!("writer-{caller}"), &key.to_string(), "x")).await;
                key += 1;
            }
        });
        let (client, stop) = (histories.client(caller % 2), stop.clone());
        callers.spawn(async move {
            let mut known = 0;
            while !stop.is_cancelled() {
                let page = client.insist_on_page(knowing("lobby", known, 50)).await;
                assert_eq!(page.messages.len(), 50);
                known = *seqs(&page.messages).last().unwrap();
            }
        });
    }

    for _ in 0..3 {
        sleep(Duration::from_millis(300)).await;
        redis.flush_all().await;
        let flushed = Instant::now();
        // Most of fifty: not the luck of one load. Not all: while one commit has overtaken another on the way to Redis, the tail
        // has a hole and is not read.
        let mut last: VecDeque<bool> = VecDeque::new();
        while last.iter().filter(|from_redis| **from_redis).count() <= 25 {
            let page = histories.insist_on_page(newest("lobby", 50)).await;
            last.push_back(source(page.read_info) == Source::Redis);
            last.drain(..last.len().saturating_sub(50));
            assert!(flushed.elapsed() < SOON, "still from Postgres");
        }
    }
    stop.cancel();
    callers.join_all().await;
    histories.settled().await;
    let truth = histories.truth("lobby").await;
    assert_eq!(histories.newest("lobby", 200).await.messages, truth[truth.len() - 200..]);
    drop(histories);
    stack.stop().await;
}
