//! Commands and round trips per call, as the server counts them.

use std::collections::BTreeMap;

use tidings_devstack::RedisServer;
use tidings_devstack::testing::own_redis;
use tidings_redis::{Script, cmd};

use super::support::{LONG_TIMEOUT, connected_lane, open_redis};

/// Calls per test: enough to make the round trips of the probes negligible.
const CALLS: u64 = 1000;
/// Commands of a probe, sent twice a second.
const PROBE_COMMANDS: [&str; 2] = ["info", "set"];

/// Counters of a server since its start.
struct ServerCounters {
    /// Calls by command, without those of probes and of the connection that reads the counters.
    commands: BTreeMap<String, u64>,
    /// Reads of a socket; each is one round trip of a client.
    reads: u64,
}

fn counters(server: &RedisServer) -> ServerCounters {
    let mut operator = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let info: String = cmd("INFO").arg("stats").arg("commandstats").query(&mut operator).unwrap();
    let calls = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let ignored = PROBE_COMMANDS.contains(&name) || name.starts_with("client");
        (!ignored).then(|| (name.to_owned(), rest.split(',').next().unwrap().parse().unwrap()))
    };
    let reads = info.lines().find_map(|line| line.strip_prefix("total_reads_processed:")).unwrap().parse().unwrap();
    ServerCounters { commands: info.lines().filter_map(calls).collect(), reads }
}

/// Returns the calls by command and the round trips since `before`.
fn counted_since(server: &RedisServer, before: &ServerCounters) -> (BTreeMap<String, u64>, u64) {
    let mut now = counters(server);
    for (name, calls) in &before.commands {
        *now.commands.get_mut(name).unwrap() -= calls;
    }
    now.commands.retain(|_, calls| *calls > 0);
    (now.commands, now.reads - before.reads)
}

/// Asserts that each call took one round trip, with an allowance of half of that for probes.
#[track_caller]
fn assert_one_round_trip_per_call(trips: u64) {
    assert!((CALLS..CALLS * 3 / 2).contains(&trips), "{trips} round trips for {CALLS} calls");
}

/// Taking a lane for each call adds no command and no round trip.
#[tokio::test]
async fn a_command_costs_one_round_trip() {
    let server = own_redis().await;
    let redis = open_redis(&server, 2, LONG_TIMEOUT);
    connected_lane(&redis).await;

    let before = counters(&server);
    for _ in 0..CALLS {
        let mut lane = redis.reader().await.unwrap();
        let _absent: Option<String> = lane.send(cmd("GET").arg(lane.key(format_args!("x")))).await.unwrap();
    }

    let (commands, trips) = counted_since(&server, &before);
    assert_eq!(commands, BTreeMap::from([("get".to_owned(), CALLS)]));
    assert_one_round_trip_per_call(trips);
}

#[tokio::test]
async fn a_loaded_script_costs_one_command_and_one_round_trip() {
    let server = own_redis().await;
    let redis = open_redis(&server, 2, LONG_TIMEOUT);
    let script = Script::new("return ARGV[1]");
    let call = script.arg("x");
    let _: String = connected_lane(&redis).await.read(&call).await.unwrap();

    let before = counters(&server);
    for _ in 0..CALLS {
        let _: String = redis.writer("x").await.unwrap().read(&call).await.unwrap();
    }

    let (commands, trips) = counted_since(&server, &before);
    assert_eq!(commands, BTreeMap::from([("evalsha".to_owned(), CALLS)]));
    assert_one_round_trip_per_call(trips);
}

#[tokio::test]
async fn many_loaded_scripts_cost_one_round_trip() {
    let server = own_redis().await;
    let redis = open_redis(&server, 2, LONG_TIMEOUT);
    let script = Script::new("return ARGV[1]");
    let calls: Vec<_> = (0..20).map(|_| script.arg("x")).collect();
    let _: Vec<String> = connected_lane(&redis).await.read_all(&calls).await.unwrap();

    let before = counters(&server);
    for _ in 0..CALLS {
        let _: Vec<String> = redis.writer("x").await.unwrap().read_all(&calls).await.unwrap();
    }

    let (commands, trips) = counted_since(&server, &before);
    assert_eq!(commands, BTreeMap::from([("evalsha".to_owned(), 20 * CALLS)]));
    assert_one_round_trip_per_call(trips);
}
