//! A Redis that is killed, paused, unreachable, out of memory or misconfigured.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tidings_devstack::testing::{eventually, own_redis};
use tidings_redis::{Args, Error, Redis, Role, cmd};

use super::support::{LONG_TIMEOUT, SHORT_TIMEOUT, args, connected_lane, connection_id, open_redis};

#[tokio::test]
async fn a_lane_reconnects_after_the_server_was_killed() {
    let server = own_redis().await;
    let redis = open_redis(&server, 2, LONG_TIMEOUT);
    connected_lane(&redis).await;

    server.kill().await;
    for _ in 0..2 {
        connection_id(redis.reader().await).await.unwrap_err();
    }
    server.start().await.unwrap();

    for name in ["both", "lanes", "are", "connected"] {
        eventually("writers receive replies", async || connection_id(redis.writer(name).await).await.is_ok()).await;
    }
}

#[tokio::test]
async fn lanes_reconnect_after_the_server_closed_their_connections() {
    let server = own_redis().await;
    let redis = open_redis(&server, 2, LONG_TIMEOUT);
    connected_lane(&redis).await;
    let mut operator = redis::Client::open(server.url()).unwrap().get_connection().unwrap();

    cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes").exec(&mut operator).unwrap();

    // At most one call per lane meets the closed connection; no other call fails.
    let mut failed = 0;
    for _ in 0..20 {
        failed += usize::from(connection_id(redis.reader().await).await.is_err());
    }
    assert!(failed <= 2, "{failed} calls failed on 2 lanes");
}

#[tokio::test]
async fn a_closed_lane_reconnects_before_the_next_call() {
    let server = own_redis().await;
    let redis = open_redis(&server, 2, LONG_TIMEOUT);
    for _ in 0..2 {
        connection_id(redis.reader().await).await.unwrap();
    }
    let operator = Mutex::new(redis::Client::open(server.url()).unwrap().get_connection().unwrap());

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
        connection_id(redis.reader().await).await.unwrap();
    }
    // The next regular probe would detect it, too, but half a second later.
    assert!(begun.elapsed() < 20 * Duration::from_millis(250), "{:?}", begun.elapsed());
}

/// Even if it loads a snapshot: the old keys exist, and no reader uses them.
#[tokio::test]
async fn a_restarted_server_is_another_incarnation() {
    let server = own_redis().await;
    let redis = open_redis(&server, 1, LONG_TIMEOUT);
    let mut lane = connected_lane(&redis).await;
    let before = lane.key(format_args!("name"));
    let () = lane.send(cmd("SET").arg(&before).arg("old")).await.unwrap();
    let () = lane.send(&cmd("SAVE")).await.unwrap();

    server.kill().await;
    server.start().await.unwrap();

    let mut lane = connected_lane(&redis).await;
    let after = lane.key(format_args!("name"));
    let of_old_key: Option<String> = lane.send(cmd("GET").arg(&before)).await.unwrap();
    let of_new_key: Option<String> = lane.send(cmd("GET").arg(&after)).await.unwrap();
    assert_ne!(before, after);
    assert_eq!((of_old_key.as_deref(), of_new_key), (Some("old"), None));
}

/// Nineteen do not.
#[tokio::test]
async fn twenty_unanswered_calls_in_a_row_reconnect_a_lane() {
    let server = own_redis().await;
    let redis = open_redis(&server, 1, SHORT_TIMEOUT);
    let mut before = connection_id(Ok(connected_lane(&redis).await)).await.unwrap();

    for (unanswered, reconnects) in [(19, false), (20, true)] {
        let mut lane = connected_lane(&redis).await; // obtained before the breaker opens
        server.pause();
        for _ in 0..unanswered {
            let error = lane.send::<i64>(cmd("CLIENT").arg("ID")).await.unwrap_err();
            assert!(matches!(error, Error::Unanswered(_)), "{error:?}");
        }
        server.resume();

        let after = connection_id(Ok(connected_lane(&redis).await)).await.unwrap();
        assert_eq!(after != before, reconnects, "{unanswered} unanswered calls");
        before = after;
    }
}

#[tokio::test]
async fn a_lane_with_unanswered_probes_reconnects_without_calls() {
    let server = own_redis().await;
    let redis = open_redis(&server, 1, SHORT_TIMEOUT);
    let before = connection_id(Ok(connected_lane(&redis).await)).await.unwrap();

    server.pause();
    let abandoned = Instant::now() + Duration::from_secs(5);
    eventually("unanswered probes end the connection", async || Instant::now() > abandoned).await;
    server.resume();

    assert_ne!(connection_id(Ok(connected_lane(&redis).await)).await.unwrap(), before);
}

/// The error states that nothing was sent.
#[tokio::test]
async fn a_call_to_an_unreachable_redis_fails_fast() {
    let args = Args { redis_timeout: Some(SHORT_TIMEOUT.into()), ..Args::new("redis://127.0.0.1:1".parse().unwrap()) };
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

    // The callers wait concurrently; one after the other they would take 5 s.
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_call_to_a_paused_redis_ends_at_its_timeout() {
    let server = own_redis().await;
    let redis = open_redis(&server, 1, SHORT_TIMEOUT);
    connected_lane(&redis).await;

    server.pause();
    let begun = Instant::now();
    connection_id(redis.reader().await).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    server.resume();

    connected_lane(&redis).await;
}

#[tokio::test]
async fn a_new_incarnation_on_the_same_connection_is_detected() {
    let (server, other) = (own_redis().await, own_redis().await);
    let redis = open_redis(&server, 1, LONG_TIMEOUT);
    let before = connected_lane(&redis).await.incarnation().clone();

    // A server takes a new replication id when its first replica attaches, and keeps its clients.
    let mut replica = redis::Client::open(other.url()).unwrap().get_connection().unwrap();
    cmd("REPLICAOF").arg("127.0.0.1").arg(server.port()).exec(&mut replica).unwrap();

    eventually("another incarnation", async || redis.reader().await.is_ok_and(|lane| *lane.incarnation() != before))
        .await;
}

/// It is used again once it accepts writes.
#[tokio::test]
async fn a_server_that_refuses_writes_counts_as_unavailable() {
    let server = own_redis().await;
    let redis = open_redis(&server, 1, SHORT_TIMEOUT);
    connected_lane(&redis).await;
    let mut operator = redis::Client::open(server.url()).unwrap().get_connection().unwrap();

    cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).exec(&mut operator).unwrap();
    eventually("Redis counts as unavailable", async || redis.reader().await.is_err()).await;

    cmd("CONFIG").arg("SET").arg("maxmemory").arg(0).exec(&mut operator).unwrap();
    connected_lane(&redis).await;
}

/// Commands that free memory, as releases of locks, must go on.
#[tokio::test]
async fn lanes_of_role_state_stay_up_when_redis_is_out_of_memory() {
    let server = own_redis().await;
    let redis = Redis::open(&args(&server, 1, LONG_TIMEOUT), "test", Role::State).unwrap();
    let before = connection_id(Ok(connected_lane(&redis).await)).await.unwrap();
    let mut operator = redis::Client::open(server.url()).unwrap().get_connection().unwrap();

    cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).exec(&mut operator).unwrap();
    let write = redis.reader().await.unwrap().send::<()>(cmd("SET").arg("key").arg("value")).await.unwrap_err();
    assert!(matches!(write, Error::Unwritable(_)), "{write:?}");
    let two_probes = Instant::now() + Duration::from_millis(1200);
    eventually("two probes have passed", async || Instant::now() > two_probes).await;

    assert_eq!(connection_id(redis.reader().await).await.unwrap(), before, "the lane was reconnected");
    assert!(!redis.ping().await, "the health check ignores that writes are refused");
}

#[tokio::test]
async fn a_server_that_may_evict_keys_is_refused_for_state_only() {
    let server = own_redis().await;
    let mut operator = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    for (name, value) in [("maxmemory", "1gb"), ("maxmemory-policy", "allkeys-lru")] {
        cmd("CONFIG").arg("SET").arg(name).arg(value).exec(&mut operator).unwrap();
    }

    let state = Redis::open(&args(&server, 1, SHORT_TIMEOUT), "test", Role::State).unwrap();
    connected_lane(&open_redis(&server, 1, LONG_TIMEOUT)).await;
    assert!(matches!(state.reader().await.unwrap_err(), Error::Away));

    cmd("CONFIG").arg("SET").arg("maxmemory-policy").arg("noeviction").exec(&mut operator).unwrap();
    connected_lane(&state).await;
}
