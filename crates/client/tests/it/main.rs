//! The client over real sockets and by the real clock: what tests in virtual time can not show.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod fake;

use std::time::Duration;

use fake::Instance;
use tidings_client::{AcquireOptions, Acquired, Caller, Endpoints, Error, LockGuard, Policy};
use tidings_proto::lock::lock_service_client::LockServiceClient;
use tidings_proto::lock::{GetLockRequest, GetLockResponse};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Longer than any of these tests takes on the slowest machine.
const PATIENCE: Duration = Duration::from_mins(1);

fn caller(instances: &[&Instance]) -> Caller {
    let addresses: Vec<_> = instances.iter().map(|instance| instance.address()).collect();
    Caller::new(
        Endpoints::new(&addresses.join(",").parse().unwrap()),
        Policy { patience: PATIENCE, ..Policy::default() },
    )
}

/// Asks who serves.
async fn who(caller: &Caller) -> Result<String, Error> {
    let request = GetLockRequest { name: "orders/42".into() };
    let answer: GetLockResponse = caller
        .call("GetLock", &request, async |channel, request| LockServiceClient::new(channel).get_lock(request).await)
        .await?;
    Ok(answer.lock.unwrap_or_default().name)
}

/// Calls `count` times from each of 16 tasks. Returns who answered.
async fn storm(caller: &Caller, count: usize) -> Result<Vec<String>, Error> {
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let caller = caller.clone();
        tasks.spawn(async move {
            let mut answers = Vec::new();
            for _ in 0..count {
                answers.push(who(&caller).await?);
            }
            Ok(answers)
        });
    }
    let answers: Result<Vec<_>, Error> = tasks.join_all().await.into_iter().collect();
    Ok(answers?.concat())
}

#[tokio::test]
async fn two_instances_are_both_used() {
    let (one, two) = (Instance::start("one"), Instance::start("two"));

    let answers = storm(&caller(&[&one, &two]), 10).await.unwrap();

    assert_eq!(answers.iter().filter(|answer| *answer == "one").count(), answers.len() / 2);
}

#[tokio::test]
async fn an_instance_that_dies_costs_no_call_and_is_used_again_when_it_is_back() {
    let (mut one, two) = (Instance::start("one"), Instance::start("two"));
    let caller = caller(&[&one, &two]);
    storm(&caller, 10).await.unwrap();

    for _ in 0..3 {
        let (answers, ()) = tokio::join!(storm(&caller, 100), async { one.kill() });
        assert_eq!(answers.unwrap().len(), 1_600);

        one.restart().await;
        while who(&caller).await.unwrap() != "one" {
            sleep(Duration::from_millis(10)).await;
        }
    }
    assert!(caller.repeats() > 0, "nothing was repeated");
}

#[tokio::test]
async fn when_all_instances_are_away_their_return_is_waited_for() {
    let (mut one, mut two) = (Instance::start("one"), Instance::start("two"));
    let caller = caller(&[&one, &two]);
    one.kill();
    two.kill();

    let (answer, ()) = tokio::join!(who(&caller), async {
        sleep(Duration::from_millis(300)).await;
        two.restart().await;
    });

    assert_eq!(answer.unwrap(), "two");
}

#[tokio::test]
async fn a_call_over_an_address_where_nobody_listens_says_so() {
    let mut one = Instance::start("one");
    let address = one.address();
    let policy = Policy { patience: Duration::from_millis(100), ..Policy::default() };
    let caller = Caller::new(Endpoints::new(&address.parse().unwrap()), policy);
    one.kill();

    let error = who(&caller).await.unwrap_err().to_string();

    assert!(error.starts_with(&format!("GetLock: {address}: connection refused; is it running?")), "{error}");
}

#[tokio::test]
async fn a_lock_is_held_past_its_lease_by_the_clock_of_this_machine_and_lost_at_its_deadline() {
    let (mut one, mut two) = (Instance::start("one"), Instance::start("two"));
    let caller = caller(&[&one, &two]);
    let options = AcquireOptions { ttl: Duration::from_secs(3), ..AcquireOptions::new("orders/42", "test") };
    let Acquired::Granted(guard) = LockGuard::acquire(&caller, options).await.unwrap() else { panic!("it is free") };
    let first = guard.deadline();

    while !first.remaining().is_zero() {
        sleep(Duration::from_millis(50)).await;
    }
    assert!(!guard.is_lost() && guard.deadline() > first, "it was renewed");

    one.kill();
    two.kill();
    let (deadline, lost) = (guard.deadline(), guard.lost().await);

    assert!(deadline.remaining().is_zero());
    assert!(lost.to_string().starts_with("the lease was not renewed in time: UNAVAILABLE"), "{lost}");
}
