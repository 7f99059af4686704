//! Everything that can go wrong, in the middle of everything: who checks finds no two believers and no token out of order.

mod checker;
mod clients;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use redis::cmd;
use tidings_devstack::Devstack;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::checker::{Belief, check};
use crate::support::client::waiting;
use crate::support::{Locks, eventually, own_stack};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const CLIENTS: usize = 10;

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Flush,
    Restart,
    Snapshot,
    Pause,
    Deaf,
    Crash(usize),
    Postgres,
}

/// Fifty faults in any order. Losses of Redis are few among them, for each stops everything for two seconds.
fn faults() -> Vec<Fault> {
    let mut faults = vec![Fault::Flush, Fault::Flush, Fault::Restart, Fault::Snapshot, Fault::Snapshot];
    faults.extend([Fault::Pause; 12]);
    faults.extend([Fault::Deaf; 14]);
    faults.extend((0..14).map(|number| Fault::Crash(number % 3)));
    faults.extend([Fault::Postgres; 5]);
    faults.shuffle(&mut rand::rng());
    faults
}

async fn strike(stack: &Devstack, locks: &mut Locks<'_>, fault: Fault) {
    let a_while = Duration::from_millis(rand::rng().random_range(50..600));
    match fault {
        Fault::Flush => locks.redis().await.run(&cmd("FLUSHALL")).await,
        Fault::Restart => {
            stack.redis().kill().await;
            sleep(a_while / 3).await;
            stack.redis().start().await.unwrap(); // with nothing, or with what was saved before
        }
        Fault::Snapshot => {
            locks.redis().await.run::<()>(&cmd("SAVE")).await;
            sleep(a_while).await;
            stack.redis().kill().await;
            stack.redis().start().await.unwrap();
        }
        Fault::Pause => {
            stack.redis().pause();
            sleep(a_while).await;
            stack.redis().resume();
        }
        Fault::Deaf => locks.redis().await.run(cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub")).await,
        Fault::Crash(place) => {
            locks.kill(place);
            sleep(a_while).await;
            locks.restart(place).await;
        }
        Fault::Postgres => {
            stack.postgres().kill().await;
            sleep(a_while / 3).await;
            stack.postgres().start().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_makes_two_believe_or_a_token_come_out_of_order() {
    let stack = own_stack().await;
    let mut locks = Locks::start_on(&stack, 3, |_, config| config.redis.redis_timeout = None).await;
    let (stop, history) = (CancellationToken::new(), Arc::new(Mutex::new(Vec::new())));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let instances = [0, 1, 2].map(|place| locks.client(place));
        clients.spawn(clients::work(number, instances, Arc::clone(&history), stop.clone()));
    }

    let faults = faults();
    for fault in &faults {
        sleep(Duration::from_millis(rand::rng().random_range(50..600))).await;
        strike(&stack, &mut locks, *fault).await;
    }
    stop.cancel();
    clients.join_all().await;

    let history: Vec<Belief> = history.lock().unwrap().clone();
    check(&history).unwrap_or_else(|broken| panic!("{broken}\nafter {faults:?}"));
    assert!(history.len() > 50, "only {} grants", history.len());
    for name in NAMES {
        let last = history.iter().filter(|belief| belief.name == name).map(|belief| belief.token).max();
        for place in 0..3 {
            let hold = locks.client(place).insist(waiting(name, "after")).await.granted();
            assert!(last.is_none_or(|last| hold.token > last));
            locks.client(place).release(&hold).await.unwrap();
        }
    }
    let redis = locks.redis().await;
    eventually("nobody is left in a queue", async || {
        // What a killed instance left behind ends when its time is over.
        redis.advance(Duration::from_secs(5)).await;
        redis.size("waiters").await + redis.size("queue").await + redis.size("holds").await + redis.size("due").await
            == 0
    })
    .await;
    drop(locks);
    stack.stop().await;
}

#[tokio::test]
async fn the_checker_sees_a_lock_that_was_taken_from_a_believer() {
    let locks = Locks::start().await;
    let redis = locks.redis().await;
    let mut history = vec![Belief::begin(&locks.take("a", "ada").await)];
    redis.run::<()>(cmd("HDEL").arg(redis.key("holds")).arg("a")).await; // as a release that compares nothing would
    history.push(Belief::begin(&locks.take("a", "bob").await));

    assert!(check(&history).unwrap_err().contains("while"));
}

#[tokio::test]
async fn the_checker_sees_a_token_that_goes_back_and_one_that_is_given_twice() {
    let locks = Locks::start().await;
    let redis = locks.redis().await;
    for back in [1, 2] {
        let first = locks.take("a", "ada").await;
        let mut history = vec![Belief::begin(&first)];
        history[0].end();
        locks.release(&first).await.unwrap();
        redis.set_meta("seq", redis.meta("seq").await - back).await; // as an old snapshot would
        let second = locks.take("a", "bob").await;
        history.push(Belief::begin(&second));
        locks.release(&second).await.unwrap();

        check(&history).unwrap_err();
        redis.set_meta("seq", redis.meta("seq").await + 10).await;
    }
}
