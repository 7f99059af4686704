//! The cost of an append: its statements, as the log of Postgres has them.

use std::fs;

use tidings_devstack::testing::{eventually, own_stack};

use crate::support::HistoryCluster;
use crate::support::client::text;

/// Returns the first words of the statements of the service's calls.
fn statements(log: &str) -> Vec<String> {
    let prefixes = ["BEGIN", "COMMIT", "WITH moved", "WITH inserted", "SELECT no,", "SELECT message."];
    // A statement spans several lines: `LOG:  execute sqlx_s_1: WITH ...`,
    // `LOG:  statement: COMMIT`.
    let entries = log.split("LOG:  ").filter(|entry| entry.starts_with("execute ") || entry.starts_with("statement: "));
    let texts = entries.filter_map(|entry| Some(entry.split_once(": ")?.1.trim_start()));
    let prefix_of = |text: &str| prefixes.iter().find(|prefix| text.starts_with(**prefix));
    texts.filter_map(prefix_of).map(|prefix| (*prefix).to_owned()).collect()
}

/// A duplicate takes a second attempt: a transaction that decides under the locks.
#[tokio::test]
async fn an_append_of_a_new_message_is_one_statement() {
    let stack = own_stack().await;
    let cluster = HistoryCluster::start_without_relay(&stack, 1, |_, _| {}).await;
    cluster.fill("lobby", 1).await;
    for setting in ["ALTER SYSTEM SET log_statement = 'all'", "SELECT pg_reload_conf()"] {
        cluster.execute(setting).await;
    }
    let is_logging = "SELECT count(*) FROM pg_settings WHERE name = 'log_statement' AND setting = 'all'";
    eventually("postgres logs all statements", async || cluster.count(is_logging).await == 1).await;
    let log = stack.dir().join("postgres.log");
    let since = |from: usize| statements(&fs::read_to_string(&log).unwrap()[from..]);
    let log_size = || usize::try_from(fs::metadata(&log).unwrap().len()).unwrap();

    let start = log_size();
    cluster.append(text("lobby", "ada", "once", "hello")).await.unwrap();
    assert_eq!(since(start), ["WITH moved"]);

    let start = log_size();
    assert!(cluster.append(text("lobby", "ada", "once", "hello")).await.unwrap().deduplicated);
    assert_eq!(since(start), ["WITH moved", "BEGIN", "SELECT no,", "SELECT message.", "SELECT message.", "COMMIT"]);
    drop(cluster);
    stack.stop().await;
}
