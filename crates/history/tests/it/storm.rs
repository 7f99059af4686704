//! Redis forgets, dies and comes back with what it knew long ago, in the middle of everything.

use std::time::Duration;

use rand::RngExt as _;
use redis::cmd;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::support::client::{Anchor, Client, Source, at, knowing, newest, source, text};
use crate::support::{Histories, eventually, own_stack, seqs};

const CONVERSATIONS: [&str; 3] = ["a", "b", "c"];

/// How long each state of Redis lasts.
const WHILE: Duration = Duration::from_millis(600);

/// Appends, and reads at once what was appended, until told to stop.
async fn write(client: Client, sender: String, stop: CancellationToken) {
    let mut key = 0;
    while !stop.is_cancelled() {
        let conversation = CONVERSATIONS[key % 3];
        let appended = client.insist(text(conversation, &sender, &key.to_string(), "x")).await.message.unwrap();
        let page = client.insist_on_page(knowing(conversation, appended.seq, 50)).await;
        let newest = *seqs(&page.messages).last().unwrap();
        assert!(newest >= appended.seq, "{newest} is less than {}", appended.seq);
        key += 1;
        sleep(Duration::from_millis(5)).await;
    }
}

/// Reads anywhere, until told to stop; that no page has a hole is checked by the client.
async fn read(client: Client, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let (seq, size) = (rand::rng().random_range(1..400), rand::rng().random_range(1..=200));
        let conversation = CONVERSATIONS[rand::rng().random_range(0..3)];
        let request = match rand::rng().random_range(0..5) {
            0 => at(conversation, Anchor::AfterSeq(seq), size),
            1 => at(conversation, Anchor::BeforeSeq(seq), size),
            2 => at(conversation, Anchor::AroundSeq(seq), size),
            _ => newest(conversation, size),
        };
        client.insist_on_page(request).await;
        sleep(Duration::from_millis(5)).await;
    }
}

/// Every page of every conversation on every instance equals Postgres.
async fn assert_equal(histories: &Histories<'_>) {
    histories.settled().await;
    for conversation in CONVERSATIONS {
        let truth = histories.truth(conversation).await;
        let count = truth.len();
        for client in [histories.client(0), histories.client(1)] {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushall_kill_and_an_old_snapshot_of_redis_change_no_answer() {
    let stack = own_stack().await;
    let histories = Histories::start_on(&stack, 2, |_, config| {
        config.redis.redis_timeout = Some(Duration::from_millis(200).into());
    })
    .await;
    for conversation in CONVERSATIONS {
        histories.fill(conversation, 250).await;
        histories.newest(conversation, 50).await;
    }
    let stop = CancellationToken::new();
    let mut callers = JoinSet::new();
    for caller in 0..4 {
        callers.spawn(write(histories.client(caller % 2), format!("writer-{caller}"), stop.clone()));
        callers.spawn(read(histories.client(caller % 2), stop.clone()));
    }

    sleep(WHILE).await;
    histories.redis().await.flush_all().await;
    sleep(WHILE).await;
    stack.redis().kill().await;
    sleep(WHILE).await;
    stack.redis().start().await.unwrap(); // with nothing
    sleep(WHILE).await;
    histories.redis().await.run::<()>(&cmd("SAVE")).await;
    sleep(WHILE).await;
    stack.redis().kill().await;
    sleep(WHILE / 3).await;
    stack.redis().start().await.unwrap(); // with what it knew a while ago
    sleep(WHILE).await;

    stop.cancel();
    callers.join_all().await;
    assert_equal(&histories).await;
    eventually("the tails are used again", async || source(histories.newest("a", 50).await.read_info) == Source::Redis)
        .await;

    // Once more without anybody to repair it by chance: the snapshot is older than the last messages.
    histories.redis().await.run::<()>(&cmd("SAVE")).await;
    for conversation in CONVERSATIONS {
        histories.say(conversation, "late", "late").await;
    }
    histories.settled().await;
    stack.redis().kill().await;
    stack.redis().start().await.unwrap();
    assert_equal(&histories).await;
    drop(histories);
    stack.stop().await;
}
