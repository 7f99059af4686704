//! Scripts on a server that may have lost them.

use tidings_devstack::RedisServer;
use tidings_devstack::testing::{self, eventually, own_redis};
use tidings_redis::{Error, Lane, Script, WriteOutcome, cmd};

use super::support::{LONG_TIMEOUT, SHORT_TIMEOUT, connected_lane, open_redis};

/// Starts a server whose scripts the test may flush; returns it with a lane.
async fn start() -> (RedisServer, Lane) {
    let server = own_redis().await;
    let lane = connected_lane(&open_redis(&server, 1, LONG_TIMEOUT)).await;
    (server, lane)
}

async fn flush_scripts(lane: &mut Lane) {
    let () = lane.send(cmd("SCRIPT").arg("FLUSH")).await.unwrap();
}

#[tokio::test]
async fn an_unknown_script_is_loaded() {
    let (_server, mut lane) = start().await;
    let twice = Script::new("return ARGV[1] * 2");
    let mut call = twice.prepare_invoke();
    call.arg(21);

    for _ in 0..2 {
        let answer: i64 = lane.read(&call).await.unwrap();
        assert_eq!(answer, 42);
        flush_scripts(&mut lane).await;
    }
}

/// With all, some or none of the scripts loaded.
#[tokio::test]
async fn the_replies_of_many_calls_arrive_in_order() {
    let (_server, mut lane) = start().await;
    let (twice, thrice) = (Script::new("return ARGV[1] * 2"), Script::new("return ARGV[1] * 3"));
    let calls: Vec<_> = (0..500_i64)
        .map(|number| {
            let mut call = if number % 7 == 6 { thrice.prepare_invoke() } else { twice.prepare_invoke() };
            call.arg(number);
            call
        })
        .collect();
    let expected: Vec<i64> = (0..500).map(|number| number * if number % 7 == 6 { 3 } else { 2 }).collect();

    for _ in 0..2 {
        let answers: Vec<i64> = lane.read_all(&calls).await.unwrap();
        assert_eq!(answers, expected);
        flush_scripts(&mut lane).await;
    }
    let _loaded: i64 = lane.read(&calls[0]).await.unwrap();
    let answers: Vec<i64> = lane.read_all(&calls).await.unwrap();
    assert_eq!(answers, expected, "with one of two scripts loaded");
}

/// The outcome is unknown if the scripts are flushed meanwhile.
#[tokio::test]
async fn write_all_once_runs_no_call_twice() {
    let (server, mut lane) = start().await;
    let mut other_lane = connected_lane(&open_redis(&server, 1, LONG_TIMEOUT)).await;
    let count = Script::new("return redis.call('INCR', KEYS[1])");
    let key = lane.key(format_args!("count"));
    let calls: Vec<_> = (0..500).map(|_| count.key(&key)).collect();

    let answers: Vec<i64> = lane.write_all_once(&calls).await.assume_idempotent().unwrap();
    assert_eq!(answers, (1..=500).collect::<Vec<_>>(), "loaded, then run");
    let mut before: i64 = 500;
    for _ in 0..20 {
        flush_scripts(&mut lane).await;
        let concurrent = async { other_lane.read::<i64>(&count.key(&key)).await.unwrap() };
        let (outcome, concurrent_count) = tokio::join!(lane.write_all_once::<i64>(&calls), concurrent);
        let now: i64 = lane.send(cmd("GET").arg(&key)).await.unwrap();
        match outcome {
            WriteOutcome::Done(answers) => {
                let all = answers.iter().chain([&concurrent_count]).copied();
                assert_eq!(all.max(), Some(now), "a call did not run exactly once");
                assert_eq!(now - before, 501);
            }
            WriteOutcome::Unknown(_) => assert!(now - before <= 501, "a call ran twice"),
            WriteOutcome::NotDone(error) => panic!("{error}"),
        }
        before = now;
    }
}

#[tokio::test]
async fn no_calls_return_no_replies() {
    let mut lane = connected_lane(&open_redis(testing::shared_redis().await, 1, LONG_TIMEOUT)).await;

    let answers: Vec<i64> = lane.read_all(&[]).await.unwrap();

    assert!(answers.is_empty());
}

#[tokio::test]
async fn a_failing_script_is_refused_and_the_lane_stays_usable() {
    let mut lane = connected_lane(&open_redis(testing::shared_redis().await, 1, LONG_TIMEOUT)).await;
    let (good, bad) = (Script::new("return 1"), Script::new("return redis.call('NO SUCH COMMAND')"));
    let calls = [good.prepare_invoke(), bad.prepare_invoke(), good.prepare_invoke()];

    let refusal = lane.read_all::<i64>(&calls).await.unwrap_err();

    assert!(matches!(refusal, Error::Refused(_)), "{refusal:?}");
    let answers: Vec<i64> = lane.read_all(&calls[..1]).await.unwrap();
    assert_eq!(answers, [1]);
}

/// A single refused write is not applied; a batch may have been applied partly.
#[tokio::test]
async fn an_unanswered_write_is_unknown_and_may_be_applied_later() {
    let server = own_redis().await;
    let redis = open_redis(&server, 1, SHORT_TIMEOUT);
    let mut lane = connected_lane(&redis).await;
    let count = Script::new("return redis.call('INCR', KEYS[1])");
    let key = lane.key(format_args!("count"));
    let call = count.key(&key);
    assert!(matches!(lane.write::<i64>(&call).await, WriteOutcome::Done(1)));

    server.pause();
    assert!(matches!(lane.write::<i64>(&call).await, WriteOutcome::Unknown(Error::Unanswered(_))));
    server.resume();

    let mut lane = connected_lane(&redis).await;
    eventually("the unanswered write is applied", async || {
        connected_lane(&redis).await.send::<i64>(cmd("GET").arg(&key)).await.is_ok_and(|count| count == 2)
    })
    .await;
    let () = lane.send(cmd("CONFIG").arg("SET").arg("min-replicas-to-write").arg(1)).await.unwrap();
    assert!(matches!(lane.write::<i64>(&call).await, WriteOutcome::NotDone(Error::Unwritable(_))));
    assert!(matches!(lane.write_all::<i64>(&[count.key(&key)]).await, WriteOutcome::Unknown(Error::Unwritable(_))));
}
