//! A writer that dies between its commit and telling the tail.

use fail::FailScenario;
use tidings_devstack::testing;

use crate::hold::Hold;
use crate::support::client::{Source, knowing, source, text};
use crate::support::{Histories, NEVER, eventually, seqs};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_process_that_dies_between_commit_and_apply_is_repaired_by_the_outbox() {
    let _scenario = FailScenario::setup();
    // Only the second instance relays: the first is dead for all that matters.
    let histories = Histories::start_on(testing::shared().await, 2, |place, config| {
        if place == 0 {
            config.relay.history_relay_tick = NEVER.into();
        }
    })
    .await;
    let (dying, living) = (histories.client(0), histories.client(1));
    living.fill("lobby", 5).await;
    living.newest("lobby", 5).await;

    for round in 1..=3 {
        let request = text("lobby", "ada", &format!("orphan-{round}"), "x");
        fail::cfg("history::before_apply", "1*panic->off").unwrap();
        let failure = dying.append(request.clone()).await.unwrap_err();
        assert_eq!((failure.code, failure.reason.as_str()), (tonic::Code::Internal, "INTERNAL"));
        assert_eq!(failure.message, "internal error");

        let page = living.list(knowing("lobby", 5 + round, 3)).await.unwrap();
        assert_eq!(page.last_seq, 5 + round, "min_seq has it at once");
        histories.redis().await.evict("lobby").await;
        let repeat = living.append(request).await.unwrap();
        assert_eq!((repeat.deduplicated, repeat.message.unwrap().seq), (true, 5 + round));
        living.newest("lobby", 3).await;
    }
    histories.settled().await;
    assert_eq!(living.newest("lobby", 200).await.messages, histories.truth("lobby").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tail_hears_of_an_orphan_within_a_tick_or_two() {
    let _scenario = FailScenario::setup();
    let histories = Histories::start_two().await;
    let redis = histories.redis().await;
    histories.fill("lobby", 5).await;
    histories.newest("lobby", 5).await;
    histories.settled().await;

    for round in 1..=3 {
        fail::cfg("history::before_apply", "1*panic->off").unwrap();
        histories.append(text("lobby", "ada", &round.to_string(), "x")).await.unwrap_err();
        eventually("the relay has told the tail", async || redis.tail("lobby").await.len() == 5 + round).await;
        let page = histories.newest("lobby", 2).await;
        assert_eq!((source(page.read_info), page.last_seq), (Source::Redis, 5 + round as i64));
    }
    histories.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_late_apply_changes_nothing() {
    let _scenario = FailScenario::setup();
    let histories = Histories::start_two().await;
    let redis = histories.redis().await;
    histories.fill("lobby", 5).await;
    histories.newest("lobby", 5).await;

    let hold = Hold::first_at("history::before_apply");
    let slow = histories.client(1);
    let append = tokio::spawn(async move { slow.say("lobby", "ada", "slow").await });
    hold.holds().await;
    for key in ["a", "b"] {
        histories.say("lobby", "bob", key).await; // follows a message that the tail does not know
    }
    histories.settled().await;
    let before = histories.newest("lobby", 9).await;
    drop(hold);

    assert_eq!(append.await.unwrap().seq, 6);
    assert_eq!(seqs(&before.messages), (1..=8).collect::<Vec<_>>());
    assert_eq!(histories.newest("lobby", 9).await.messages, before.messages);
    assert_eq!(redis.tail("lobby").await, (1..=8).collect::<Vec<_>>());
}
