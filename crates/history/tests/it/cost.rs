//! What an append costs: statements in Postgres, as Postgres writes them down.

use std::fs;

use crate::support::client::text;
use crate::support::{Histories, NEVER, eventually, own_stack};

/// The statements that Postgres has run within the service's calls, by their first words; those of the relay are left out.
fn statements(log: &str) -> Vec<String> {
    let ours = ["BEGIN", "COMMIT", "WITH moved", "WITH inserted", "SELECT no,", "SELECT message."];
    // A statement goes on over many lines: `LOG:  execute sqlx_s_1: WITH ...`, `LOG:  statement: COMMIT`.
    let entries = log.split("LOG:  ").filter(|entry| entry.starts_with("execute ") || entry.starts_with("statement: "));
    let texts = entries.filter_map(|entry| Some(entry.split_once(": ")?.1.trim_start()));
    let begins = |text: &str| ours.iter().find(|begin| text.starts_with(**begin));
    texts.filter_map(begins).map(|begin| (*begin).to_owned()).collect()
}

#[tokio::test]
async fn an_append_of_a_new_message_is_one_statement_and_a_repeat_asks_under_the_locks() {
    let stack = own_stack().await;
    let histories = Histories::start_on(&stack, 1, |_, config| config.relay.history_relay_tick = NEVER.into()).await;
    histories.fill("lobby", 1).await;
    histories.settled().await;
    for setting in ["ALTER SYSTEM SET log_statement = 'all'", "SELECT pg_reload_conf()"] {
        histories.tell(setting).await;
    }
    let told = "SELECT count(*) FROM pg_settings WHERE name = 'log_statement' AND setting = 'all'";
    eventually("statements are written down", async || histories.count(told).await == 1).await;
    let log = stack.dir().join("postgres.log");
    let since = |from: usize| statements(&fs::read_to_string(&log).unwrap()[from..]);
    let now = || usize::try_from(fs::metadata(&log).unwrap().len()).unwrap();

    let begun = now();
    histories.append(text("lobby", "ada", "once", "hello")).await.unwrap();
    assert_eq!(since(begun), ["WITH moved"]);

    let begun = now();
    assert!(histories.append(text("lobby", "ada", "once", "hello")).await.unwrap().deduplicated);
    assert_eq!(since(begun), ["WITH moved", "BEGIN", "SELECT no,", "SELECT message.", "SELECT message.", "COMMIT"]);
    drop(histories);
    stack.stop().await;
}
