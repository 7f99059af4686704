//! The client over real sockets and with the real clock, which virtual time cannot cover.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod fake;

use std::time::Duration;

use fake::LockInstance;
use tidings_client::{AcquireOptions, Acquisition, Caller, Endpoints, Error, LockGuard, Policy};
use tidings_proto::lock::lock_service_client::LockServiceClient;
use tidings_proto::lock::{GetLockRequest, GetLockResponse};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Longer than any of these tests takes on a slow machine.
const PATIENCE: Duration = Duration::from_mins(1);

fn caller(instances: &[&LockInstance]) -> Caller {
    let addresses: Vec<_> = instances.iter().map(|instance| instance.address()).collect();
    Caller::new(
        Endpoints::new(&addresses.join(",").parse().unwrap()),
        Policy { patience: PATIENCE, ..Policy::default() },
    )
}

/// Returns the name of the instance that responds.
async fn responding_instance(caller: &Caller) -> Result<String, Error> {
    let request = GetLockRequest { name: "orders/42".into() };
    let response: GetLockResponse = caller
        .call("GetLock", &request, async |channel, request| LockServiceClient::new(channel).get_lock(request).await)
        .await?;
    Ok(response.lock.unwrap_or_default().name)
}

/// Calls `count` times from each of 16 tasks. Returns the names of the responding instances.
async fn call_concurrently(caller: &Caller, count: usize) -> Result<Vec<String>, Error> {
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let caller = caller.clone();
        tasks.spawn(async move {
            let mut names = Vec::new();
            for _ in 0..count {
                names.push(responding_instance(&caller).await?);
            }
            Ok(names)
        });
    }
    let names: Result<Vec<_>, Error> = tasks.join_all().await.into_iter().collect();
    Ok(names?.concat())
}

#[tokio::test]
async fn two_instances_are_both_used() {
    let (one, two) = (LockInstance::start("one"), LockInstance::start("two"));

    let names = call_concurrently(&caller(&[&one, &two]), 10).await.unwrap();

    assert_eq!(names.iter().filter(|name| *name == "one").count(), names.len() / 2);
}

/// Calls in flight to it are retried at the other instance.
#[tokio::test]
async fn a_killed_instance_costs_no_call_and_is_used_again() {
    let (mut one, two) = (LockInstance::start("one"), LockInstance::start("two"));
    let caller = caller(&[&one, &two]);
    call_concurrently(&caller, 10).await.unwrap();

    for _ in 0..3 {
        let (names, ()) = tokio::join!(call_concurrently(&caller, 100), async { one.kill() });
        assert_eq!(names.unwrap().len(), 1_600);

        one.restart().await;
        while responding_instance(&caller).await.unwrap() != "one" {
            sleep(Duration::from_millis(10)).await;
        }
    }
    assert!(caller.retries() > 0, "no call was retried");
}

#[tokio::test]
async fn a_call_waits_while_all_instances_are_down() {
    let (mut one, mut two) = (LockInstance::start("one"), LockInstance::start("two"));
    let caller = caller(&[&one, &two]);
    one.kill();
    two.kill();

    let (name, ()) = tokio::join!(responding_instance(&caller), async {
        sleep(Duration::from_millis(300)).await;
        two.restart().await;
    });

    assert_eq!(name.unwrap(), "two");
}

#[tokio::test]
async fn a_refused_connection_is_reported() {
    let mut one = LockInstance::start("one");
    let address = one.address();
    let policy = Policy { patience: Duration::from_millis(100), ..Policy::default() };
    let caller = Caller::new(Endpoints::new(&address.parse().unwrap()), policy);
    one.kill();

    let error = responding_instance(&caller).await.unwrap_err().to_string();

    assert!(error.starts_with(&format!("GetLock: {address}: connection refused; is it running?")), "{error}");
}

#[tokio::test]
async fn a_lock_is_renewed_and_lost_by_the_real_clock() {
    let (mut one, mut two) = (LockInstance::start("one"), LockInstance::start("two"));
    let caller = caller(&[&one, &two]);
    let options = AcquireOptions { ttl: Duration::from_secs(3), ..AcquireOptions::new("orders/42", "test") };
    let Acquisition::Granted(guard) = LockGuard::acquire(&caller, options).await.unwrap() else {
        panic!("expected a grant")
    };
    let first = guard.deadline();

    while !first.remaining().is_zero() {
        sleep(Duration::from_millis(50)).await;
    }
    assert!(!guard.is_lost() && guard.deadline() > first, "the lease was not renewed");

    one.kill();
    two.kill();
    let (deadline, lost) = (guard.deadline(), guard.lost().await);

    assert!(deadline.remaining().is_zero());
    assert!(lost.to_string().starts_with("the lease was not renewed in time: UNAVAILABLE"), "{lost}");
}
