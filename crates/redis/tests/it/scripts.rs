//! Scripts of a server that may have forgotten them.

use tidings_devstack::{Devstack, testing};
use tidings_redis::{Error, Lane, Script, Written, cmd};

use super::support::{LONG, SHORT, connected, eventually, open, own};

/// A lane to a server of its own, which a test may make forget its scripts.
async fn start() -> (Devstack, Lane) {
    let stack = own().await;
    let lane = connected(&open(&stack, 1, LONG)).await;
    (stack, lane)
}

async fn forget(lane: &mut Lane) {
    let () = lane.send(cmd("SCRIPT").arg("FLUSH")).await.unwrap();
}

#[tokio::test]
async fn a_script_that_the_server_does_not_know_is_loaded() {
    let (_stack, mut lane) = start().await;
    let twice = Script::new("return ARGV[1] * 2");
    let mut call = twice.prepare_invoke();
    call.arg(21);

    for _ in 0..2 {
        let answer: i64 = lane.read(&call).await.unwrap();
        assert_eq!(answer, 42);
        forget(&mut lane).await;
    }
}

#[tokio::test]
async fn many_calls_are_answered_in_their_order_whatever_the_server_knows() {
    let (_stack, mut lane) = start().await;
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
        forget(&mut lane).await;
    }
    let _known: i64 = lane.read(&calls[0]).await.unwrap();
    let answers: Vec<i64> = lane.read_all(&calls).await.unwrap();
    assert_eq!(answers, expected, "one script known, the other not");
}

#[tokio::test]
async fn calls_that_must_not_be_run_twice_are_run_once_or_said_to_be_doubtful() {
    let (stack, mut lane) = start().await;
    let mut knowing = connected(&open(&stack, 1, LONG)).await;
    let count = Script::new("return redis.call('INCR', KEYS[1])");
    let key = lane.key(format_args!("count"));
    let calls: Vec<_> = (0..500).map(|_| count.key(&key)).collect();

    let answers: Vec<i64> = lane.write_all_once(&calls).await.or_again().unwrap();
    assert_eq!(answers, (1..=500).collect::<Vec<_>>(), "loaded, then run");
    let mut known: i64 = 500;
    for _ in 0..20 {
        forget(&mut lane).await;
        let load = async { knowing.read::<i64>(&count.key(&key)).await.unwrap() };
        let (answer, by_another) = tokio::join!(lane.write_all_once::<i64>(&calls), load);
        let now: i64 = lane.send(cmd("GET").arg(&key)).await.unwrap();
        match answer {
            Written::Done(answers) => {
                let all = answers.iter().chain([&by_another]).copied();
                assert_eq!(all.max(), Some(now), "each was run once");
                assert_eq!(now - known, 501);
            }
            Written::Doubtful(_) => assert!(now - known <= 501, "none was run twice"),
            Written::NotDone(error) => panic!("{error}"),
        }
        known = now;
    }
}

#[tokio::test]
async fn no_calls_have_no_answers_and_cost_nothing() {
    let mut lane = connected(&open(testing::shared().await, 1, LONG)).await;

    let answers: Vec<i64> = lane.read_all(&[]).await.unwrap();

    assert!(answers.is_empty());
}

#[tokio::test]
async fn a_script_that_fails_is_refused_and_the_lane_goes_on() {
    let mut lane = connected(&open(testing::shared().await, 1, LONG)).await;
    let (good, bad) = (Script::new("return 1"), Script::new("return redis.call('NO SUCH COMMAND')"));
    let calls = [good.prepare_invoke(), bad.prepare_invoke(), good.prepare_invoke()];

    let refusal = lane.read_all::<i64>(&calls).await.unwrap_err();

    assert!(matches!(refusal, Error::Refused(_)), "{refusal:?}");
    let answers: Vec<i64> = lane.read_all(&calls[..1]).await.unwrap();
    assert_eq!(answers, [1]);
}

#[tokio::test]
async fn a_write_that_gets_no_answer_is_doubtful_and_may_be_done_later() {
    let stack = own().await;
    let redis = open(&stack, 1, SHORT);
    let mut lane = connected(&redis).await;
    let count = Script::new("return redis.call('INCR', KEYS[1])");
    let key = lane.key(format_args!("count"));
    let call = count.key(&key);
    assert!(matches!(lane.write::<i64>(&call).await, Written::Done(1)));

    stack.redis().pause();
    assert!(matches!(lane.write::<i64>(&call).await, Written::Doubtful(Error::Unanswered(_))));
    stack.redis().resume();

    let mut lane = connected(&redis).await;
    eventually("it was done all the same", async || {
        connected(&redis).await.send::<i64>(cmd("GET").arg(&key)).await.is_ok_and(|count| count == 2)
    })
    .await;
    let () = lane.send(cmd("CONFIG").arg("SET").arg("min-replicas-to-write").arg(1)).await.unwrap();
    assert!(matches!(lane.write::<i64>(&call).await, Written::NotDone(Error::Unwritable(_))));
    assert!(matches!(lane.write_all::<i64>(&[count.key(&key)]).await, Written::Doubtful(Error::Unwritable(_))));
}
