//! The reasons of the lock service.

use std::time::Duration;

use tidings_devstack::Devstack;
use tidings_proto::lock as pb;
use tidings_proto::lock::acquire_lock_response::{Granted, Outcome};
use tidings_proto::lock::lock_service_client::LockServiceClient;
use tidings_status::Failure;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tonic::transport::Channel;

use super::{Reached, call, hurried, insist, of_every_server, of_tokens, overwrite, own_stack};
use crate::hostile::plain::Plain;
use crate::service::{SOON, Service};

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

/// Without waiting.
fn take(name: &str, ttl: Duration, request_id: &str) -> pb::AcquireLockRequest {
    acquire(name, ttl, Duration::ZERO, request_id)
}

/// Longer than the test takes.
fn wait(name: &str, request_id: &str) -> pb::AcquireLockRequest {
    acquire(name, MINUTE, MINUTE, request_id)
}

fn get(name: &str) -> pb::GetLockRequest {
    pb::GetLockRequest { name: name.to_owned() }
}

/// Begins to wait for a lock that somebody has.
fn waiting(plain: &Plain, name: &str, request_id: &str) -> JoinHandle<Result<(), Failure>> {
    let (plain, request) = (plain.clone(), wait(name, request_id));
    tokio::spawn(async move { call(&plain, "AcquireLock", &request).await })
}

async fn until_waiting(locks: &mut LockServiceClient<Channel>, name: &str, count: i32) {
    let waiting = async {
        while locks.get_lock(get(name)).await.unwrap().into_inner().lock.unwrap().waiter_count != count {
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.unwrap();
}

async fn granted(locks: &mut LockServiceClient<Channel>, request: pb::AcquireLockRequest) -> Granted {
    match locks.acquire_lock(request).await.unwrap().into_inner().outcome {
        Some(Outcome::Granted(granted)) => granted,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reason_of_lock_is_reached() {
    let mut reached = Reached::of("lock");
    let stack = own_stack().await;
    let flags = ["--lock-fresh-start", "--lock-max-waiters", "2", "--postgres-statement-timeout", "500ms"];
    let service = Service::on(stack, "lock", &flags, &[]).await;
    let plain = Plain::connect(service.address).await;

    reached.note("INVALID_FIELDS", call(&plain, "GetLock", &get("no//segment")).await);
    of_every_server(&mut reached, &service, "GetLock", &get("orders/42")).await;
    of_tokens(&mut reached, stack, "lock", "GetLock").await;
    of_leases(&mut reached, &service, &plain).await;
    of_stores(&mut reached, stack, &plain).await;
    of_waiting(&mut reached, &service, &plain).await;
    // The first instance has been told to stop.
    let another = service.another().await;
    of_loss(&mut reached, stack, &another).await;

    reached.assert_all();
}

async fn of_leases(reached: &mut Reached, service: &Service, plain: &Plain) {
    let mut locks = LockServiceClient::new(service.channel().await);
    let hold = granted(&mut locks, take("orders/42", MINUTE, "r1")).await;
    reached.note("REQUEST_ID_REUSED", call(plain, "AcquireLock", &take("orders/43", MINUTE, "r1")).await);
    let (name, lease_id, token) = ("orders/42".to_owned(), hold.lease_id, hold.token);
    locks.release_lock(pb::ReleaseLockRequest { name: name.clone(), lease_id: lease_id.clone(), token }).await.unwrap();
    reached.note("LEASE_OVER", call(plain, "AcquireLock", &take("orders/42", MINUTE, "r1")).await);
    let renew = pb::RenewLockRequest { name, lease_id, token };
    reached.note("LEASE_LOST", call(plain, "RenewLock", &renew).await);
}

async fn of_stores(reached: &mut Reached, stack: &Devstack, plain: &Plain) {
    stack.redis().pause();
    let late = hurried(plain, "GetLock", &get("orders/42")).await;
    let away = insist(plain, "GetLock", &get("orders/42"), "STATE_AWAY").await;
    stack.redis().resume();
    reached.note("DEADLINE_EXCEEDED", late);
    reached.note_retry("STATE_AWAY", away);
    stack.postgres().pause();
    // Longer than any lease before.
    let away = insist(plain, "AcquireLock", &take("long", 5 * MINUTE, ""), "STORE_AWAY").await;
    stack.postgres().resume();
    reached.note_retry("STORE_AWAY", away);
}

async fn of_waiting(reached: &mut Reached, service: &Service, plain: &Plain) {
    let mut locks = LockServiceClient::new(service.channel().await);
    granted(&mut locks, take("held", MINUTE, "")).await;
    let first = waiting(plain, "held", "w1");
    until_waiting(&mut locks, "held", 1).await;
    let again = waiting(plain, "held", "w1");
    reached.note("TAKEN_OVER", first.await.unwrap());
    let other = waiting(plain, "held", "w2");
    until_waiting(&mut locks, "held", 2).await;
    reached.note_retry("OVERLOADED", call(plain, "AcquireLock", &wait("held", "w3")).await);
    service.terminate();
    for waiter in [again, other] {
        reached.note_retry("DRAINING", waiter.await.unwrap());
    }
}

async fn of_loss(reached: &mut Reached, stack: &Devstack, service: &Service) {
    let plain = Plain::connect(service.address).await;
    // It knows the epoch: what is lost from now on is lost while it runs.
    call(&plain, "GetLock", &get("orders/42")).await.unwrap();
    let mut redis = redis::Client::open(stack.redis().url()).unwrap().get_connection().unwrap();
    redis::cmd("FLUSHALL").exec(&mut redis).unwrap();
    let request = take("orders/42", MINUTE, "");
    reached.note_retry("QUARANTINE", insist(&plain, "AcquireLock", &request, "QUARANTINE").await);

    overwrite(stack, service, "lock:{lk00}:holds");
    reached.note("INTERNAL", call(&plain, "GetLock", &get("orders/42")).await);
}
