//! Redis loses its data, dies and restarts with an old snapshot while clients append and read.

use std::time::Duration;

use rand::RngExt as _;
use redis::cmd;
use tidings_devstack::testing::{eventually, own_stack};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::support::client::{Anchor, HistoryClient, Source, at, newest, newest_with_min_seq, source, text};
use crate::support::{HistoryCluster, seqs};

const CONVERSATIONS: [&str; 3] = ["a", "b", "c"];

/// Duration of each state of Redis.
const PHASE: Duration = Duration::from_millis(600);

/// Appends messages, and reads each one back at once, until `stop`.
async fn write(client: HistoryClient, sender: String, stop: CancellationToken) {
    let mut key = 0;
    while !stop.is_cancelled() {
        let conversation = CONVERSATIONS[key % 3];
        let appended =
            client.append_with_retry(text(conversation, &sender, &key.to_string(), "x")).await.message.unwrap();
        let page = client.list_with_retry(newest_with_min_seq(conversation, appended.seq, 50)).await;
        let newest = *seqs(&page.messages).last().unwrap();
        assert!(newest >= appended.seq, "the page ends with {newest}, before the appended {}", appended.seq);
        key += 1;
        sleep(Duration::from_millis(5)).await;
    }
}

/// Reads random pages until `stop`. The client checks that no page has a gap.
async fn read(client: HistoryClient, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let (seq, size) = (rand::rng().random_range(1..400), rand::rng().random_range(1..=200));
        let conversation = CONVERSATIONS[rand::rng().random_range(0..3)];
        let request = match rand::rng().random_range(0..5) {
            0 => at(conversation, Anchor::AfterSeq(seq), size),
            1 => at(conversation, Anchor::BeforeSeq(seq), size),
            2 => at(conversation, Anchor::AroundSeq(seq), size),
            _ => newest(conversation, size),
        };
        client.list_with_retry(request).await;
        sleep(Duration::from_millis(5)).await;
    }
}

/// Checks that every page of every conversation on every instance equals Postgres.
async fn assert_equal(cluster: &HistoryCluster<'_>) {
    cluster.wait_until_relayed().await;
    for conversation in CONVERSATIONS {
        let truth = cluster.truth(conversation).await;
        let count = truth.len();
        for client in [cluster.client(0), cluster.client(1)] {
            for size in [1, 50, 200] {
                let page = client.newest(conversation, size).await;
                assert_eq!(page.messages, truth[count - size as usize..]);
                assert_eq!(page.last_seq, count as i64);
            }
            for start in (0..count).step_by(61) {
                let page = client.list(at(conversation, Anchor::AfterSeq(start as i64), 61)).await.unwrap();
                assert_eq!(page.messages, truth[start..count.min(start + 61)]);
                let page = client.list(at(conversation, Anchor::BeforeSeq(start as i64 + 1), 61)).await.unwrap();
                assert_eq!(page.messages, truth[start.saturating_sub(61)..start]);
            }
        }
    }
}

/// Redis loses its data by FLUSHALL and by a kill, and restarts with an old snapshot, while clients
/// append and read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losses_of_redis_change_no_response() {
    let stack = own_stack().await;
    let cluster = HistoryCluster::start_on(&stack, 2, |_, config| {
        config.redis.redis_timeout = Some(Duration::from_millis(200).into());
    })
    .await;
    for conversation in CONVERSATIONS {
        cluster.fill(conversation, 250).await;
        cluster.newest(conversation, 50).await;
    }
    let stop = CancellationToken::new();
    let mut callers = JoinSet::new();
    for caller in 0..4 {
        callers.spawn(write(cluster.client(caller % 2), format!("writer-{caller}"), stop.clone()));
        callers.spawn(read(cluster.client(caller % 2), stop.clone()));
    }

    sleep(PHASE).await;
    cluster.redis().await.flush_all().await;
    sleep(PHASE).await;
    stack.redis().kill().await;
    sleep(PHASE).await;
    stack.redis().start().await.unwrap(); // without data
    sleep(PHASE).await;
    cluster.redis().await.run::<()>(&cmd("SAVE")).await;
    sleep(PHASE).await;
    stack.redis().kill().await;
    sleep(PHASE / 3).await;
    stack.redis().start().await.unwrap(); // with the snapshot
    sleep(PHASE).await;

    stop.cancel();
    callers.join_all().await;
    assert_equal(&cluster).await;
    eventually("pages come from the tails again", async || {
        source(cluster.newest("a", 50).await.read_info) == Source::Redis
    })
    .await;

    // Once more without clients that could repair a tail by chance. The snapshot is older than the
    // last messages.
    cluster.redis().await.run::<()>(&cmd("SAVE")).await;
    for conversation in CONVERSATIONS {
        cluster.say(conversation, "late", "late").await;
    }
    cluster.wait_until_relayed().await;
    stack.redis().kill().await;
    stack.redis().start().await.unwrap();
    assert_equal(&cluster).await;
    drop(cluster);
    stack.stop().await;
}
