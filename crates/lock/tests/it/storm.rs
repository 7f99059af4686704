//! Random faults under load: the history checker finds no overlapping holds and no token out of
//! order.

mod checker;
mod clients;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use redis::cmd;
use tidings_devstack::Devstack;
use tidings_devstack::testing::{eventually, own_stack};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::checker::{HoldInterval, check};
use crate::support::LockFixture;
use crate::support::client::waiting;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const CLIENTS: usize = 10;

/// A fault to inject.
#[derive(Clone, Copy, Debug)]
enum StormFault {
    Flush,
    Restart,
    Snapshot,
    Pause,
    CutPubSub,
    Crash(usize),
    Postgres,
}

/// Returns fifty faults in random order. Losses of Redis are few, as each stops all grants for 2 s.
fn faults() -> Vec<StormFault> {
    let mut faults =
        vec![StormFault::Flush, StormFault::Flush, StormFault::Restart, StormFault::Snapshot, StormFault::Snapshot];
    faults.extend([StormFault::Pause; 12]);
    faults.extend([StormFault::CutPubSub; 14]);
    faults.extend((0..14).map(|number| StormFault::Crash(number % 3)));
    faults.extend([StormFault::Postgres; 5]);
    faults.shuffle(&mut rand::rng());
    faults
}

async fn inject(stack: &Devstack, locks: &mut LockFixture<'_>, fault: StormFault) {
    let pause = Duration::from_millis(rand::rng().random_range(50..600));
    match fault {
        StormFault::Flush => locks.redis().await.run(&cmd("FLUSHALL")).await,
        StormFault::Restart => {
            stack.redis().kill().await;
            sleep(pause / 3).await;
            stack.redis().start().await.unwrap(); // empty, or from an earlier snapshot
        }
        StormFault::Snapshot => {
            locks.redis().await.run::<()>(&cmd("SAVE")).await;
            sleep(pause).await;
            stack.redis().kill().await;
            stack.redis().start().await.unwrap();
        }
        StormFault::Pause => {
            stack.redis().pause();
            sleep(pause).await;
            stack.redis().resume();
        }
        StormFault::CutPubSub => locks.redis().await.run(cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub")).await,
        StormFault::Crash(index) => {
            locks.kill(index);
            sleep(pause).await;
            locks.restart(index).await;
        }
        StormFault::Postgres => {
            stack.postgres().kill().await;
            sleep(pause / 3).await;
            stack.postgres().start().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_allows_two_holders_or_a_token_out_of_order() {
    let stack = own_stack().await;
    let mut locks = LockFixture::start_on(&stack, 3, |_, config| config.redis.redis_timeout = None).await;
    let (stop, history) = (CancellationToken::new(), Arc::new(Mutex::new(Vec::new())));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let instances = [0, 1, 2].map(|index| locks.client(index));
        clients.spawn(clients::work(number, instances, Arc::clone(&history), stop.clone()));
    }

    let faults = faults();
    for fault in &faults {
        sleep(Duration::from_millis(rand::rng().random_range(50..600))).await;
        inject(&stack, &mut locks, *fault).await;
    }
    stop.cancel();
    clients.join_all().await;

    let history: Vec<HoldInterval> = history.lock().unwrap().clone();
    check(&history).unwrap_or_else(|broken| panic!("{broken}\nafter {faults:?}"));
    assert!(history.len() > 50, "only {} grants", history.len());
    for name in NAMES {
        let last = history.iter().filter(|interval| interval.name == name).map(|interval| interval.token).max();
        for index in 0..3 {
            let hold = locks.client(index).acquire_with_retries(waiting(name, "after")).await.granted();
            assert!(last.is_none_or(|last| hold.token > last));
            locks.client(index).release(&hold).await.unwrap();
        }
    }
    let redis = locks.redis().await;
    eventually("all queues are empty", async || {
        // State of killed instances expires.
        redis.advance(Duration::from_secs(5)).await;
        redis.size("waiters").await + redis.size("queue").await + redis.size("holds").await + redis.size("due").await
            == 0
    })
    .await;
    drop(locks);
    stack.stop().await;
}

#[tokio::test]
async fn the_checker_finds_a_grant_during_another_hold() {
    let locks = LockFixture::start().await;
    let redis = locks.redis().await;
    let mut history = vec![HoldInterval::start(&locks.take("a", "ada").await)];
    redis.run::<()>(cmd("HDEL").arg(redis.key("holds")).arg("a")).await; // like a release without comparison
    history.push(HoldInterval::start(&locks.take("a", "bob").await));

    assert!(check(&history).unwrap_err().contains("while"));
}

/// As an old snapshot of Redis would cause them.
#[tokio::test]
async fn the_checker_finds_a_repeated_and_a_decreasing_token() {
    let locks = LockFixture::start().await;
    let redis = locks.redis().await;
    for back in [1, 2] {
        let first = locks.take("a", "ada").await;
        let mut history = vec![HoldInterval::start(&first)];
        history[0].end();
        locks.release(&first).await.unwrap();
        redis.set_meta("seq", redis.meta("seq").await - back).await; // like an old snapshot
        let second = locks.take("a", "bob").await;
        history.push(HoldInterval::start(&second));
        locks.release(&second).await.unwrap();

        check(&history).unwrap_err();
        redis.set_meta("seq", redis.meta("seq").await + 10).await;
    }
}
