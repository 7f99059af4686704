//! Many waiting calls of one client: short calls pass them.

use std::time::Duration;

use tidings_client::{AcquireOptions, Acquisition, Caller, Endpoints, LockGuard, Policy};
use tidings_devstack::testing::{self, PATIENCE};
use tidings_lock::Config;
use tidings_proto::lock::RenewLockRequest;
use tidings_proto::lock::lock_service_client::LockServiceClient;
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::LockFixture;
use crate::support::client::{lasting, once, waiting};

/// One channel of gRPC would queue the renewals behind the acquires, until the lease expires.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_pass_300_waiting_acquires_of_one_client() {
    let tune = |_, config: &mut Config| config.server.max_streams = Some(100);
    let locks = LockFixture::start_on(testing::shared().await, 1, tune).await;
    let endpoints = Endpoints::new(&locks.address(0).to_string().parse().unwrap());
    let caller = Caller::new(endpoints, Policy { timeout: PATIENCE, ..Policy::default() });
    let options = |owner: &str, wait| AcquireOptions { ttl: PATIENCE * 2, wait, ..AcquireOptions::new("a", owner) };
    let Acquisition::Granted(hold) = LockGuard::acquire(&caller, options("ada", Duration::ZERO)).await.unwrap() else {
        panic!("the lock is free")
    };
    let mut waiters = JoinSet::new();
    for number in 0..300 {
        let (caller, options) = (caller.clone(), options(&format!("bob-{number}"), Duration::from_mins(1)));
        waiters.spawn(async move { LockGuard::acquire(&caller, options).await });
    }
    locks.wait_for_waiters("a", 300).await;

    let request = RenewLockRequest { name: "a".into(), lease_id: hold.lease_id().into(), token: hold.token() };
    let renew = async |channel, request| LockServiceClient::new(channel).renew_lock(request).await;
    caller.call("RenewLock", &request, renew).await.unwrap();

    assert!(hold.release().await.unwrap());
}

#[tokio::test]
async fn waiting_calls_leave_room_for_short_calls_of_a_connection() {
    let locks =
        LockFixture::start_on(testing::shared().await, 1, |_, config| config.server.max_streams = Some(8)).await;
    let mut hold = locks.acquire(lasting(PATIENCE * 2, once("a", "ada"))).await.unwrap().granted();
    let waiters: Vec<_> = (0..6).map(|_| locks.spawn_acquire(waiting("a", "bob"))).collect();
    locks.wait_for_waiters("a", 6).await;

    let refused = locks.acquire(waiting("a", "eve")).await.unwrap_err();

    assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(refused.message.contains("on this connection: at most 6"), "{}", refused.message);
    assert!(refused.retry_after.is_some());
    locks.acquire(once("a", "eve")).await.unwrap().held();
    locks.renew(&mut hold).await.unwrap();
    locks.release(&hold).await.unwrap();
    for waiter in waiters {
        waiter.abort();
    }
}
