//! What a call costs the server: commands and round trips as it counts them itself.

use std::collections::BTreeMap;

use tidings_devstack::Devstack;
use tidings_redis::{Script, cmd};

use super::support::{LONG, connected, open, own};

/// How often each call is made: enough that what the probes of a second cost does not matter.
const TIMES: u64 = 1000;
/// What a probe sends, twice a second.
const PROBES: [&str; 2] = ["info", "set"];

/// What a server has done so far.
struct Done {
    /// Calls of each command, but for probes and for the counting itself.
    commands: BTreeMap<String, u64>,
    /// Times that it read a socket, each of which is one trip from a client.
    reads: u64,
}

fn done(stack: &Devstack) -> Done {
    let mut operator = redis::Client::open(stack.redis().url()).unwrap().get_connection().unwrap();
    let info: String = cmd("INFO").arg("stats").arg("commandstats").query(&mut operator).unwrap();
    let calls = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let known = PROBES.contains(&name) || name.starts_with("client");
        (!known).then(|| (name.to_owned(), rest.split(',').next().unwrap().parse().unwrap()))
    };
    let reads = info.lines().find_map(|line| line.strip_prefix("total_reads_processed:")).unwrap().parse().unwrap();
    Done { commands: info.lines().filter_map(calls).collect(), reads }
}

/// What was done since then: how often each command was called, and how many trips that took.
fn since(stack: &Devstack, before: &Done) -> (BTreeMap<String, u64>, u64) {
    let mut now = done(stack);
    for (name, calls) in &before.commands {
        *now.commands.get_mut(name).unwrap() -= calls;
    }
    now.commands.retain(|_, calls| *calls > 0);
    (now.commands, now.reads - before.reads)
}

/// # Panics
/// If so many calls took more than one trip each, but for those of probes.
#[track_caller]
fn assert_one_trip_each(trips: u64) {
    assert!((TIMES..TIMES * 3 / 2).contains(&trips), "{trips} trips for {TIMES} calls");
}

#[tokio::test]
async fn a_command_is_one_command_and_one_round_trip_however_often_a_lane_is_taken() {
    let stack = own().await;
    let redis = open(&stack, 2, LONG);
    connected(&redis).await;

    let before = done(&stack);
    for _ in 0..TIMES {
        let mut lane = redis.reader().await.unwrap();
        let _absent: Option<String> = lane.send(cmd("GET").arg(lane.key(format_args!("x")))).await.unwrap();
    }

    let (commands, trips) = since(&stack, &before);
    assert_eq!(commands, BTreeMap::from([("get".to_owned(), TIMES)]));
    assert_one_trip_each(trips);
}

#[tokio::test]
async fn a_script_that_is_known_is_one_command_and_one_round_trip() {
    let stack = own().await;
    let redis = open(&stack, 2, LONG);
    let script = Script::new("return ARGV[1]");
    let call = script.arg("x");
    let _: String = connected(&redis).await.read(&call).await.unwrap();

    let before = done(&stack);
    for _ in 0..TIMES {
        let _: String = redis.writer("x").await.unwrap().read(&call).await.unwrap();
    }

    let (commands, trips) = since(&stack, &before);
    assert_eq!(commands, BTreeMap::from([("evalsha".to_owned(), TIMES)]));
    assert_one_trip_each(trips);
}

#[tokio::test]
async fn many_scripts_that_are_known_are_one_round_trip() {
    let stack = own().await;
    let redis = open(&stack, 2, LONG);
    let script = Script::new("return ARGV[1]");
    let calls: Vec<_> = (0..20).map(|_| script.arg("x")).collect();
    let _: Vec<String> = connected(&redis).await.read_all(&calls).await.unwrap();

    let before = done(&stack);
    for _ in 0..TIMES {
        let _: Vec<String> = redis.writer("x").await.unwrap().read_all(&calls).await.unwrap();
    }

    let (commands, trips) = since(&stack, &before);
    assert_eq!(commands, BTreeMap::from([("evalsha".to_owned(), 20 * TIMES)]));
    assert_one_trip_each(trips);
}
