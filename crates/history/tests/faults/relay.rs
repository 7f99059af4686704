//! A relay that dies between two of its steps.

use fail::FailScenario;
use tidings_devstack::testing;

use crate::support::broadcaster::Broadcaster;
use crate::support::client::text;
use crate::support::{Histories, eventually, seqs};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_relay_killed_at_any_line_loses_nothing_and_repeats_only_what_is_recognised() {
    let _scenario = FailScenario::setup();
    for forgetful in [false, true] {
        let broadcaster = Broadcaster::start().await;
        broadcaster.fails(|faults| faults.forgetful = forgetful);
        let mut histories =
            Histories::start_on(testing::shared().await, 2, |_, config| broadcaster.hears(config)).await;
        histories.create("lobby").await;
        let mut said = 0;
        for point in ["history::relay_has_told_the_tails", "history::relay_has_published", "history::relay_has_marked"]
        {
            fail::cfg(point, "1*panic->off").unwrap();
            for _ in 0..10 {
                say_anywhere(&histories, &said.to_string()).await;
                said += 1;
            }
            histories.settled().await;
            // Whoever came to the point has ended: a service without its relay does not go on.
            for place in 0..2 {
                histories.crash(place).await;
            }
        }

        let truth = histories.truth("lobby").await;
        assert_eq!(truth.len(), said);
        let published = broadcaster.published("lobby");
        let mut firsts: Vec<_> = Vec::new();
        for message in &published {
            if !firsts.contains(message) {
                firsts.push(message.clone());
            }
        }
        assert_eq!(firsts, truth, "each is there, first times are in order: {:?}", seqs(&published));
        assert!(forgetful || published.len() == said, "broadcast recognised what came twice");
    }
}

/// Appends through whichever instance answers.
async fn say_anywhere(histories: &Histories<'_>, key: &str) {
    let mut place = 0;
    eventually("somebody appends it", async || {
        place = 1 - place;
        histories.client(place).append(text("lobby", "ada", key, "x")).await.is_ok()
    })
    .await;
}
