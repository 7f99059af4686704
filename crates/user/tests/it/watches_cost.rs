//! What watching costs: statements in Postgres, as Postgres writes them down, and commands in Redis, as Redis counts them.

use std::fs;
use std::time::Duration;

use super::support::{NEVER, SOON, World, eventually};
use super::watcher::Watcher;

/// The statements of streams and of comparisons, in their order.
fn statements(log: &str) -> Vec<&'static str> {
    // A statement goes on over many lines: `LOG:  execute sqlx_s_1: SELECT ...`.
    let entries = log.split("LOG:  ").filter(|entry| entry.starts_with("execute "));
    let kind = |entry: &str| match entry {
        _ if entry.contains("FROM unnest($1::text[], $2::bigint[]) AS known") => Some("comparison"),
        _ if entry.contains("LIMIT 1000") => Some("begin"),
        _ => None,
    };
    entries.filter_map(kind).collect()
}

#[tokio::test]
async fn a_stream_begins_with_one_statement_and_all_ids_of_an_instance_are_compared_in_one() {
    let world = World::own().await;
    let never = |config: &mut tidings_user::Config| config.watches.user_compare_interval = NEVER.into();
    let users = world.serve_without_relay_with(never).await;
    users.create("id-7").await.unwrap();
    eventually("it listens", SOON, async || world.ears() == 1).await;
    world.log_statements().await;
    let log = world.stack().dir().join("postgres.log");
    let text = || fs::read_to_string(&log).unwrap();
    let begun = text().len();
    let since = || text()[begun..].to_owned();

    // Four streams of 1,000 ids, half of which they share.
    let mut watchers = Vec::new();
    for stream in 0..4 {
        let ids: Vec<String> = (stream * 500..stream * 500 + 1000).map(|number| format!("id-{number}")).collect();
        watchers.push(Watcher::start(&users, &ids).await);
    }
    assert_eq!(statements(&since()), ["begin"; 4]);

    // Two reasons: the connection is lost, and there is another.
    redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").exec(&mut world.redis()).unwrap();
    eventually("it is compared", SOON, async || statements(&since()).len() > 4).await;
    watchers[0].until_quiet(Duration::from_secs(1)).await;
    let compared = statements(&since()).len() - 4;
    assert!((1..=2).contains(&compared), "{compared} comparisons of 2,500 ids for a connection lost and made");
}
