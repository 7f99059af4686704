//! A Redis that is killed, stopped, or not there.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tidings_redis::{Args, Error, Redis, Role, cmd};

use super::support::{LONG, SHORT, SOON, args, connected, connection, eventually, open, own};

#[tokio::test]
async fn a_lane_is_connected_again_after_the_server_was_killed() {
    let stack = own().await;
    let redis = open(&stack, 2, LONG);
    connected(&redis).await;

    stack.redis().kill().await;
    for _ in 0..2 {
        connection(redis.reader().await).await.unwrap_err();
    }
    stack.redis().start().await.unwrap();

    for name in ["both", "lanes", "are", "connected"] {
        eventually("writers are answered", async || connection(redis.writer(name).await).await.is_ok()).await;
    }
}

#[tokio::test]
async fn lanes_that_were_cut_are_connected_again_though_the_server_lives() {
    let stack = own().await;
    let redis = open(&stack, 2, LONG);
    connected(&redis).await;
    let mut operator = redis::Client::open(stack.redis().url()).unwrap().get_connection().unwrap();

    cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes").exec(&mut operator).unwrap();

    // One call for each lane may find out; no other call fails.
    let mut failed = 0;
    for _ in 0..20 {
        failed += usize::from(connection(redis.reader().await).await.is_err());
    }
    assert!(failed <= 2, "{failed}");
}

#[tokio::test]
async fn a_lane_that_was_cut_is_made_anew_before_anybody_calls() {
    let stack = own().await;
    let redis = open(&stack, 2, LONG);
    for _ in 0..2 {
        connection(redis.reader().await).await.unwrap();
    }
    let operator = Mutex::new(redis::Client::open(stack.redis().url()).unwrap().get_connection().unwrap());

    let begun = Instant::now();
    for _ in 0..20 {
        let kill = &mut cmd("CLIENT");
        kill.arg("KILL")
            .arg("TYPE")
            .arg("normal")
            .arg("SKIPME")
            .arg("yes")
            .exec(&mut operator.lock().unwrap())
            .unwrap();
        eventually("the lanes and the operator are connected", async || {
            let list: String = cmd("CLIENT").arg("LIST").query(&mut operator.lock().unwrap()).unwrap();
            list.lines().count() == 3
        })
        .await;
        connection(redis.reader().await).await.unwrap();
    }
    // The next probe would find it, too, half a second later.
    assert!(begun.elapsed() < 20 * Duration::from_millis(250), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_server_that_restarted_is_another_reign_whatever_it_brings_back() {
    let stack = own().await;
    let redis = open(&stack, 1, LONG);
    let mut lane = connected(&redis).await;
    let before = lane.key(format_args!("name"));
    let () = lane.send(cmd("SET").arg(&before).arg("old")).await.unwrap();
    let () = lane.send(&cmd("SAVE")).await.unwrap();

    stack.redis().kill().await;
    stack.redis().start().await.unwrap();

    let mut lane = connected(&redis).await;
    let after = lane.key(format_args!("name"));
    let brought_back: Option<String> = lane.send(cmd("GET").arg(&before)).await.unwrap();
    let believed: Option<String> = lane.send(cmd("GET").arg(&after)).await.unwrap();
    assert_ne!(before, after);
    assert_eq!((brought_back.as_deref(), believed), (Some("old"), None));
}

#[tokio::test]
async fn twenty_unanswered_calls_in_a_row_force_a_new_connection_and_nineteen_do_not() {
    let stack = own().await;
    let redis = open(&stack, 1, SHORT);
    let mut before = connection(Ok(connected(&redis).await)).await.unwrap();

    for (unanswered, renewed) in [(19, false), (20, true)] {
        let mut lane = connected(&redis).await; // in hand before the breaker opens
        stack.redis().pause();
        for _ in 0..unanswered {
            let error = lane.send::<i64>(cmd("CLIENT").arg("ID")).await.unwrap_err();
            assert!(matches!(error, Error::Unanswered(_)), "{error:?}");
        }
        stack.redis().resume();

        let after = connection(Ok(connected(&redis).await)).await.unwrap();
        assert_eq!(after != before, renewed, "{unanswered}");
        before = after;
    }
}

#[tokio::test]
async fn a_server_that_answers_no_probe_for_some_seconds_gets_a_new_connection_though_nobody_calls() {
    let stack = own().await;
    let redis = open(&stack, 1, SHORT);
    let before = connection(Ok(connected(&redis).await)).await.unwrap();

    stack.redis().pause();
    let given_up = Instant::now() + Duration::from_secs(5);
    eventually("the probes have given it up", async || Instant::now() > given_up).await;
    stack.redis().resume();

    assert_ne!(connection(Ok(connected(&redis).await)).await.unwrap(), before);
}

#[tokio::test]
async fn a_call_to_a_redis_that_is_away_fails_fast_and_says_that_nothing_was_sent() {
    let args = Args { redis_timeout: Some(SHORT.into()), ..Args::new("redis://127.0.0.1:1".parse().unwrap()) };
    let redis = Redis::open(&args, "test", Role::Cache).unwrap();

    let begun = Instant::now();
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let redis = redis.clone();
            tokio::spawn(async move { redis.reader().await.unwrap_err() })
        })
        .collect();
    for call in calls {
        assert!(matches!(call.await.unwrap(), Error::Away));
    }

    // Together, not one after the other: that would be 5 s.
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_call_to_a_stopped_redis_ends_at_its_time_out() {
    let stack = own().await;
    let redis = open(&stack, 1, SHORT);
    connected(&redis).await;

    stack.redis().pause();
    let begun = Instant::now();
    connection(redis.reader().await).await.unwrap_err();
    assert!(begun.elapsed() < SOON / 5, "{:?}", begun.elapsed());
    stack.redis().resume();

    connected(&redis).await;
}

#[tokio::test]
async fn a_server_that_begins_another_reign_while_the_connection_stays_is_noticed() {
    let (stack, other) = (own().await, own().await);
    let redis = open(&stack, 1, LONG);
    let before = connected(&redis).await.reign().clone();

    // Its first replica makes a server take a new replication id; no client is disconnected.
    let mut replica = redis::Client::open(other.redis().url()).unwrap().get_connection().unwrap();
    cmd("REPLICAOF").arg("127.0.0.1").arg(stack.redis().port()).exec(&mut replica).unwrap();

    eventually("another reign", async || redis.reader().await.is_ok_and(|lane| *lane.reign() != before)).await;
}

#[tokio::test]
async fn a_server_that_refuses_writes_counts_as_away_until_it_takes_them() {
    let stack = own().await;
    let redis = open(&stack, 1, SHORT);
    connected(&redis).await;
    let mut operator = redis::Client::open(stack.redis().url()).unwrap().get_connection().unwrap();

    cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).exec(&mut operator).unwrap();
    eventually("it is away", async || redis.reader().await.is_err()).await;

    cmd("CONFIG").arg("SET").arg("maxmemory").arg(0).exec(&mut operator).unwrap();
    connected(&redis).await;
}

#[tokio::test]
async fn a_state_is_reached_though_memory_is_short_because_what_frees_must_go_on() {
    let stack = own().await;
    let redis = Redis::open(&args(&stack, 1, LONG), "test", Role::State).unwrap();
    let before = connection(Ok(connected(&redis).await)).await.unwrap();
    let mut operator = redis::Client::open(stack.redis().url()).unwrap().get_connection().unwrap();

    cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).exec(&mut operator).unwrap();
    let write = redis.reader().await.unwrap().send::<()>(cmd("SET").arg("key").arg("value")).await.unwrap_err();
    assert!(matches!(write, Error::Unwritable(_)), "{write:?}");
    let probed = Instant::now() + Duration::from_millis(1200);
    eventually("two probes have passed", async || Instant::now() > probed).await;

    assert_eq!(connection(redis.reader().await).await.unwrap(), before, "the same connection goes on");
    assert!(!redis.ping().await, "and yet it is of no use to most");
}

#[tokio::test]
async fn a_server_that_may_evict_keeps_no_state_and_any_cache() {
    let stack = own().await;
    let mut operator = redis::Client::open(stack.redis().url()).unwrap().get_connection().unwrap();
    for (name, value) in [("maxmemory", "1gb"), ("maxmemory-policy", "allkeys-lru")] {
        cmd("CONFIG").arg("SET").arg(name).arg(value).exec(&mut operator).unwrap();
    }

    let state = Redis::open(&args(&stack, 1, SHORT), "test", Role::State).unwrap();
    connected(&open(&stack, 1, LONG)).await;
    assert!(matches!(state.reader().await.unwrap_err(), Error::Away));

    cmd("CONFIG").arg("SET").arg("maxmemory-policy").arg("noeviction").exec(&mut operator).unwrap();
    connected(&state).await;
}
