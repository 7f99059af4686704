//! Lanes to a healthy Redis.

use std::collections::HashSet;

use tidings_devstack::testing::{self, eventually, own_redis};
use tidings_redis::{Error, cmd};

use super::support::{LONG_TIMEOUT, connected_lane, connection_id, open_redis};

#[tokio::test]
async fn every_key_begins_with_prefix_service_and_incarnation() {
    let server = testing::shared_redis().await;
    let mine = connected_lane(&open_redis(server, 1, LONG_TIMEOUT)).await;
    let other = connected_lane(&open_redis(server, 1, LONG_TIMEOUT)).await;

    let key = mine.key(format_args!("u:{{{}}}", "ada"));

    let parts: Vec<&str> = key.splitn(4, ':').collect();
    assert!(parts[0].starts_with("test_"));
    assert_eq!((parts[1], parts[3]), ("test", "u:{ada}"));
    assert!(parts[2].len() == 10 && parts[2].bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
    assert_ne!(key, other.key(format_args!("u:{{ada}}")));
}

#[tokio::test]
async fn keys_of_one_prefix_are_invisible_to_another() {
    let server = testing::shared_redis().await;
    let (mut mine, mut other) = (
        connected_lane(&open_redis(server, 2, LONG_TIMEOUT)).await,
        connected_lane(&open_redis(server, 2, LONG_TIMEOUT)).await,
    );

    let () = mine.send(cmd("SET").arg(mine.key(format_args!("name"))).arg("mine")).await.unwrap();

    let seen: Option<String> = mine.send(cmd("GET").arg(mine.key(format_args!("name")))).await.unwrap();
    let unseen: Option<String> = other.send(cmd("GET").arg(other.key(format_args!("name")))).await.unwrap();
    assert_eq!((seen.as_deref(), unseen), (Some("mine"), None));
}

#[tokio::test]
async fn readers_rotate_and_writers_of_one_name_share_a_lane() {
    let redis = open_redis(testing::shared_redis().await, 3, LONG_TIMEOUT);
    let (mut readers, mut writers) = (HashSet::new(), HashSet::new());

    for _ in 0..12 {
        readers.insert(connection_id(redis.reader().await).await.unwrap());
        writers.insert(connection_id(redis.writer("ada").await).await.unwrap());
    }

    assert_eq!(readers.len(), 3);
    assert_eq!(writers.len(), 1);
    assert!(writers.is_subset(&readers));
}

#[tokio::test]
async fn concurrent_callers_of_a_lane_receive_their_own_replies() {
    let redis = open_redis(testing::shared_redis().await, 1, LONG_TIMEOUT);
    connected_lane(&redis).await;

    let calls: Vec<_> = (0..500)
        .map(|number: i64| {
            let redis = redis.clone();
            tokio::spawn(async move {
                let mut lane = redis.reader().await.unwrap();
                let echoed: i64 = lane.send(cmd("ECHO").arg(number)).await.unwrap();
                echoed == number
            })
        })
        .collect();

    for call in calls {
        assert!(call.await.unwrap());
    }
}

#[tokio::test]
async fn error_and_unexpected_replies_keep_the_connection() {
    let redis = open_redis(testing::shared_redis().await, 1, LONG_TIMEOUT);
    let before = connection_id(Ok(connected_lane(&redis).await)).await.unwrap();
    let mut lane = redis.reader().await.unwrap();

    let error_reply = lane.send::<i64>(cmd("GET").arg("one").arg("two")).await.unwrap_err();
    let unexpected_reply = lane.send::<i64>(cmd("ECHO").arg("not a number")).await.unwrap_err();

    assert!(matches!(error_reply, Error::Refused(_)), "{error_reply:?}");
    assert!(matches!(unexpected_reply, Error::Refused(_)), "{unexpected_reply:?}");
    assert_eq!(connection_id(redis.reader().await).await.unwrap(), before);
}

#[tokio::test]
async fn dropping_the_last_clone_closes_the_connections() {
    let server = own_redis().await;
    let redis = open_redis(&server, 4, LONG_TIMEOUT);
    for _ in 0..4 {
        connection_id(redis.reader().await).await.unwrap();
    }
    let mut watcher = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let mut clients = || -> usize {
        let list: String = cmd("CLIENT").arg("LIST").query(&mut watcher).unwrap();
        list.lines().count()
    };
    assert_eq!(clients(), 5);

    let clone = redis.clone();
    drop(redis);
    connection_id(clone.reader().await).await.unwrap();
    drop(clone);

    let clients = std::sync::Mutex::new(clients);
    eventually("only the watcher is connected", async || clients.lock().unwrap()() == 1).await;
}
