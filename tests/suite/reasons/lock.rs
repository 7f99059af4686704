//! Covers the reasons of the lock service.

use std::time::Duration;

use tidings_devstack::Devstack;
use tidings_proto::lock as pb;
use tidings_proto::lock::acquire_lock_response::{Granted, Outcome};
use tidings_proto::lock::lock_service_client::LockServiceClient;
use tidings_status::Failure;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tonic::transport::Channel;

use super::{
    ReasonCoverage, call, call_until_reason, call_with_short_deadline, cover_server_reasons, cover_token_reasons,
    overwrite_key, own_stack,
};
use crate::hostile::grpc_client::GrpcClient;
use crate::service::{MAX_WAIT, TestService};

const MINUTE: Duration = Duration::from_mins(1);

fn acquire(name: &str, ttl: Duration, wait: Duration, request_id: &str) -> pb::AcquireLockRequest {
    pb::AcquireLockRequest {
        name: name.to_owned(),
        owner: "ada".to_owned(),
        ttl: Some(ttl.try_into().unwrap()),
        wait: Some(wait.try_into().unwrap()),
        request_id: request_id.to_owned(),
        ..Default::default()
    }
}

/// Returns an acquire that does not wait.
fn try_acquire(name: &str, ttl: Duration, request_id: &str) -> pb::AcquireLockRequest {
    acquire(name, ttl, Duration::ZERO, request_id)
}

/// Returns an acquire that waits longer than the test takes.
fn acquire_waiting(name: &str, request_id: &str) -> pb::AcquireLockRequest {
    acquire(name, MINUTE, MINUTE, request_id)
}

fn get(name: &str) -> pb::GetLockRequest {
    pb::GetLockRequest { name: name.to_owned() }
}

/// Starts to wait for a held lock.
fn spawn_waiter(client: &GrpcClient, name: &str, request_id: &str) -> JoinHandle<Result<(), Failure>> {
    let (client, request) = (client.clone(), acquire_waiting(name, request_id));
    tokio::spawn(async move { call(&client, "AcquireLock", &request).await })
}

async fn wait_for_waiters(locks: &mut LockServiceClient<Channel>, name: &str, count: i32) {
    let reached = async {
        while locks.get_lock(get(name)).await.unwrap().into_inner().lock.unwrap().waiter_count != count {
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(MAX_WAIT, reached).await.unwrap();
}

async fn acquire_granted(locks: &mut LockServiceClient<Channel>, request: pb::AcquireLockRequest) -> Granted {
    match locks.acquire_lock(request).await.unwrap().into_inner().outcome {
        Some(Outcome::Granted(granted)) => granted,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reason_of_lock_is_covered() {
    let mut coverage = ReasonCoverage::new("lock");
    let stack = own_stack().await;
    let flags = ["--lock-fresh-start", "--lock-max-waiters", "2", "--postgres-statement-timeout", "500ms"];
    let service = TestService::start_on(stack, "lock", &flags, &[]).await;
    let client = GrpcClient::connect(service.address).await;

    coverage.record("INVALID_FIELDS", call(&client, "GetLock", &get("no//segment")).await);
    cover_server_reasons(&mut coverage, &service, "GetLock", &get("orders/42")).await;
    cover_token_reasons(&mut coverage, stack, "lock", "GetLock").await;
    cover_lease_reasons(&mut coverage, &service, &client).await;
    cover_store_reasons(&mut coverage, stack, &client).await;
    cover_waiter_reasons(&mut coverage, &service, &client).await;
    // The first instance is shutting down.
    let another = service.start_another().await;
    cover_data_loss_reasons(&mut coverage, stack, &another).await;

    coverage.assert_complete();
}

async fn cover_lease_reasons(coverage: &mut ReasonCoverage, service: &TestService, client: &GrpcClient) {
    let mut locks = LockServiceClient::new(service.channel().await);
    let grant = acquire_granted(&mut locks, try_acquire("orders/42", MINUTE, "r1")).await;
    coverage.record("REQUEST_ID_REUSED", call(client, "AcquireLock", &try_acquire("orders/43", MINUTE, "r1")).await);
    let (name, lease_id, token) = ("orders/42".to_owned(), grant.lease_id, grant.token);
    locks.release_lock(pb::ReleaseLockRequest { name: name.clone(), lease_id: lease_id.clone(), token }).await.unwrap();
    coverage.record("LEASE_OVER", call(client, "AcquireLock", &try_acquire("orders/42", MINUTE, "r1")).await);
    let renew = pb::RenewLockRequest { name, lease_id, token };
    coverage.record("LEASE_LOST", call(client, "RenewLock", &renew).await);
}

async fn cover_store_reasons(coverage: &mut ReasonCoverage, stack: &Devstack, client: &GrpcClient) {
    stack.redis().pause();
    let late = call_with_short_deadline(client, "GetLock", &get("orders/42")).await;
    let unavailable = call_until_reason(client, "GetLock", &get("orders/42"), "STATE_AWAY").await;
    stack.redis().resume();
    coverage.record("DEADLINE_EXCEEDED", late);
    coverage.record_with_retry("STATE_AWAY", unavailable);
    stack.postgres().pause();
    // A TTL longer than all before, which the service must store in Postgres first.
    let unavailable =
        call_until_reason(client, "AcquireLock", &try_acquire("long", 5 * MINUTE, ""), "STORE_AWAY").await;
    stack.postgres().resume();
    coverage.record_with_retry("STORE_AWAY", unavailable);
}

async fn cover_waiter_reasons(coverage: &mut ReasonCoverage, service: &TestService, client: &GrpcClient) {
    let mut locks = LockServiceClient::new(service.channel().await);
    acquire_granted(&mut locks, try_acquire("held", MINUTE, "")).await;
    let first = spawn_waiter(client, "held", "w1");
    wait_for_waiters(&mut locks, "held", 1).await;
    let retry = spawn_waiter(client, "held", "w1");
    coverage.record("TAKEN_OVER", first.await.unwrap());
    let other = spawn_waiter(client, "held", "w2");
    wait_for_waiters(&mut locks, "held", 2).await;
    coverage.record_with_retry("OVERLOADED", call(client, "AcquireLock", &acquire_waiting("held", "w3")).await);
    service.terminate();
    for waiter in [retry, other] {
        coverage.record_with_retry("DRAINING", waiter.await.unwrap());
    }
}

async fn cover_data_loss_reasons(coverage: &mut ReasonCoverage, stack: &Devstack, service: &TestService) {
    let client = GrpcClient::connect(service.address).await;
    // The instance has read the epoch: it detects a data loss from now on at runtime.
    call(&client, "GetLock", &get("orders/42")).await.unwrap();
    let mut redis = redis::Client::open(stack.redis().url()).unwrap().get_connection().unwrap();
    redis::cmd("FLUSHALL").exec(&mut redis).unwrap();
    let request = try_acquire("orders/42", MINUTE, "");
    coverage.record_with_retry("QUARANTINE", call_until_reason(&client, "AcquireLock", &request, "QUARANTINE").await);

    overwrite_key(stack, service, "lock:{lk00}:holds");
    coverage.record("INTERNAL", call(&client, "GetLock", &get("orders/42")).await);
}
