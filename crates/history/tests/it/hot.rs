//! A hot conversation whose tail is lost while clients append and read.

use std::collections::VecDeque;
use std::time::Duration;

use tidings_devstack::testing::own_stack;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::support::client::{Source, newest, newest_with_min_seq, source, text};
use crate::support::{HistoryCluster, seqs};

/// Maximum time until most newest pages come from Redis again. A loader that was overtaken costs
/// one load lease of 3 s; the rest is for a debug build on a busy machine.
const RELOAD_MAX: Duration = Duration::from_secs(10);

/// After a FLUSHALL most newest pages come from Redis again within seconds, while eight writers
/// append.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_tail_of_a_hot_conversation_is_soon_loaded_again() {
    let stack = own_stack().await;
    let cluster = HistoryCluster::start_on(&stack, 2, |_, _| {}).await;
    cluster.fill("lobby", 300).await;
    let redis = cluster.redis().await;
    let stop = CancellationToken::new();
    let mut callers = JoinSet::new();
    for caller in 0..8 {
        let (client, stopped) = (cluster.client(caller % 2), stop.clone());
        callers.spawn(async move {
            let mut key = 0;
            while !stopped.is_cancelled() {
                client.append_on_busy_machine(text("lobby", &format!("writer-{caller}"), &key.to_string(), "x")).await;
                key += 1;
            }
        });
        let (client, stop) = (cluster.client(caller % 2), stop.clone());
        callers.spawn(async move {
            let mut min_seq = 0;
            while !stop.is_cancelled() {
                let page = client.list_with_retry(newest_with_min_seq("lobby", min_seq, 50)).await;
                assert_eq!(page.messages.len(), 50);
                min_seq = *seqs(&page.messages).last().unwrap();
            }
        });
    }

    for _ in 0..3 {
        sleep(Duration::from_millis(300)).await;
        redis.flush_all().await;
        let flushed = Instant::now();
        // The last 50 reads count, because one hit may be chance. Not all need to be hits: while
        // one commit has overtaken another, the tail has a gap and is not read.
        let mut last: VecDeque<bool> = VecDeque::new();
        while last.iter().filter(|from_redis| **from_redis).count() <= 25 {
            let page = cluster.list_with_retry(newest("lobby", 50)).await;
            last.push_back(source(page.read_info) == Source::Redis);
            last.drain(..last.len().saturating_sub(50));
            assert!(flushed.elapsed() < RELOAD_MAX, "the newest page still comes from postgres");
        }
    }
    stop.cancel();
    callers.join_all().await;
    cluster.wait_until_relayed().await;
    let truth = cluster.truth("lobby").await;
    assert_eq!(cluster.newest("lobby", 200).await.messages, truth[truth.len() - 200..]);
    drop(cluster);
    stack.stop().await;
}
