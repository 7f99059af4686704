//! Lanes of a Redis that answers.

use std::collections::HashSet;

use tidings_devstack::testing;
use tidings_redis::{Error, cmd};

use super::support::{LONG, connected, connection, eventually, open, own};

#[tokio::test]
async fn every_key_begins_with_prefix_service_and_reign() {
    let stack = testing::shared().await;
    let mine = connected(&open(stack, 1, LONG)).await;
    let other = connected(&open(stack, 1, LONG)).await;

    let key = mine.key(format_args!("u:{{{}}}", "ada"));

    let parts: Vec<&str> = key.splitn(4, ':').collect();
    assert!(parts[0].starts_with("test_"));
    assert_eq!((parts[1], parts[3]), ("test", "u:{ada}"));
    assert!(parts[2].len() == 10 && parts[2].bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
    assert_ne!(key, other.key(format_args!("u:{{ada}}")));
}

#[tokio::test]
async fn what_one_prefix_stores_another_does_not_see() {
    let stack = testing::shared().await;
    let (mut mine, mut other) = (connected(&open(stack, 2, LONG)).await, connected(&open(stack, 2, LONG)).await);

    let () = mine.send(cmd("SET").arg(mine.key(format_args!("name"))).arg("mine")).await.unwrap();

    let seen: Option<String> = mine.send(cmd("GET").arg(mine.key(format_args!("name")))).await.unwrap();
    let unseen: Option<String> = other.send(cmd("GET").arg(other.key(format_args!("name")))).await.unwrap();
    assert_eq!((seen.as_deref(), unseen), (Some("mine"), None));
}

#[tokio::test]
async fn readers_take_turns_and_writes_under_one_name_keep_to_one_lane() {
    let redis = open(testing::shared().await, 3, LONG);
    let (mut readers, mut writers) = (HashSet::new(), HashSet::new());

    for _ in 0..12 {
        readers.insert(connection(redis.reader().await).await.unwrap());
        writers.insert(connection(redis.writer("ada").await).await.unwrap());
    }

    assert_eq!(readers.len(), 3);
    assert_eq!(writers.len(), 1);
    assert!(writers.is_subset(&readers));
}

#[tokio::test]
async fn callers_share_a_lane_and_get_their_own_answers() {
    let redis = open(testing::shared().await, 1, LONG);
    connected(&redis).await;

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
async fn a_refusal_or_an_unexpected_answer_leaves_the_lane_as_it_is() {
    let redis = open(testing::shared().await, 1, LONG);
    let before = connection(Ok(connected(&redis).await)).await.unwrap();
    let mut lane = redis.reader().await.unwrap();

    let refused = lane.send::<i64>(cmd("GET").arg("one").arg("two")).await.unwrap_err();
    let unexpected = lane.send::<i64>(cmd("ECHO").arg("not a number")).await.unwrap_err();

    assert!(matches!(refused, Error::Refused(_)), "{refused:?}");
    assert!(matches!(unexpected, Error::Refused(_)), "{unexpected:?}");
    assert_eq!(connection(redis.reader().await).await.unwrap(), before);
}

#[tokio::test]
async fn the_connections_end_with_the_last_clone() {
    let stack = own().await;
    let redis = open(&stack, 4, LONG);
    for _ in 0..4 {
        connection(redis.reader().await).await.unwrap();
    }
    let mut watcher = redis::Client::open(stack.redis().url()).unwrap().get_connection().unwrap();
    let mut clients = || -> usize {
        let list: String = cmd("CLIENT").arg("LIST").query(&mut watcher).unwrap();
        list.lines().count()
    };
    assert_eq!(clients(), 5);

    let clone = redis.clone();
    drop(redis);
    connection(clone.reader().await).await.unwrap();
    drop(clone);

    let clients = std::sync::Mutex::new(clients);
    eventually("only the watcher is connected", async || clients.lock().unwrap()() == 1).await;
}
