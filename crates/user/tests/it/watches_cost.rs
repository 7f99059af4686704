//! Statements of WatchUsers in Postgres, counted in its log.

use std::fs;
use std::time::Duration;

use super::support::{NEVER, SOON, TestEnv, eventually};
use super::watcher::VersionWatcher;

/// Returns the kinds of logged statements, of new streams and of comparisons, in their order.
fn statements(log: &str) -> Vec<&'static str> {
    // A statement spans many lines: `LOG:  execute sqlx_s_1: SELECT ...`.
    let entries = log.split("LOG:  ").filter(|entry| entry.starts_with("execute "));
    let kind = |entry: &str| match entry {
        _ if entry.contains("FROM unnest($1::text[], $2::bigint[]) AS known") => Some("comparison"),
        _ if entry.contains("LIMIT 1000") => Some("begin"),
        _ => None,
    };
    entries.filter_map(kind).collect()
}

/// A comparison of all ids of an instance is one statement, too.
#[tokio::test]
async fn a_stream_begins_with_one_statement() {
    let env = TestEnv::own().await;
    let never = |config: &mut tidings_user::Config| config.watches.user_compare_interval = NEVER.into();
    let users = env.serve_without_relay_with(never).await;
    users.create("id-7").await.unwrap();
    eventually("the instance is subscribed", SOON, async || env.subscribers() == 1).await;
    env.log_statements().await;
    let log = env.stack().dir().join("postgres.log");
    let text = || fs::read_to_string(&log).unwrap();
    let start = text().len();
    let since = || text()[start..].to_owned();

    // Four streams of 1,000 ids; neighbours share half of them.
    let mut watchers = Vec::new();
    for stream in 0..4 {
        let ids: Vec<String> = (stream * 500..stream * 500 + 1000).map(|number| format!("id-{number}")).collect();
        watchers.push(VersionWatcher::start(&users, &ids).await);
    }
    assert_eq!(statements(&since()), ["begin"; 4]);

    // Two reasons to compare: the connection is lost, and a new one is subscribed.
    redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").exec(&mut env.redis()).unwrap();
    eventually("a comparison runs", SOON, async || statements(&since()).len() > 4).await;
    watchers[0].until_quiet(Duration::from_secs(1)).await;
    let compared = statements(&since()).len() - 4;
    assert!((1..=2).contains(&compared), "{compared} comparisons of 2,500 ids for a connection lost and another made");
}
