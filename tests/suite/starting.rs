//! Services that are started before their Postgres is there, or with one that is not right.

use std::time::Duration;

use prost::Message as _;
use tidings_devstack::{Devstack, Options};
use tidings_proto::{history, lock, user};
use tidings_server::health::pb::health_check_response::ServingStatus;
use tidings_server::health::pb::health_client::HealthClient;
use tidings_server::health::pb::{HealthCheckRequest, HealthListRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tonic::Code;

use crate::hostile::plain::Plain;
use crate::service::{SOON, Service};
use crate::support::say;

/// The services that keep something in Postgres, and a call of each that asks it.
fn services() -> [(&'static str, &'static str, Vec<u8>); 3] {
    let user = user::GetUserRequest { id: "ada".to_owned(), ..Default::default() };
    let history = history::GetConversationRequest { id: "lobby".to_owned() };
    let lock = lock::GetLockRequest { name: "orders/42".to_owned() };
    [
        ("user", "/tidings.user.v1.UserService/GetUser", user.encode_to_vec()),
        ("history", "/tidings.history.v1.ConversationService/GetConversation", history.encode_to_vec()),
        ("lock", "/tidings.lock.v1.LockService/GetLock", lock.encode_to_vec()),
    ]
}

async fn own_stack() -> &'static Devstack {
    Box::leak(Box::new(Devstack::start(Options::temporary()).await.unwrap()))
}

/// Waits until it has said in its log that it waits, and checks that it says so wherever it can be asked.
async fn assert_waits(service: &mut Service, stack: &Devstack, method: &str, request: &[u8]) {
    let place = format!("postgres://127.0.0.1:{}/{}", stack.postgres().port(), service.database());
    service.until(&format!("waiting for postgres at {place}")).await;
    let (code, entries) = service.get("/readyz").await;
    assert_eq!(code, 503, "{entries}");
    assert!(entries.lines().all(|line| !line.ends_with(" SERVING")), "{entries}");
    assert_eq!(service.get("/livez").await.0, 200);

    // A server that is silent is not known to be away for 5 s; until then it may begin at any moment, and calls wait.
    let mut health = HealthClient::new(service.channel().await);
    let asked = HealthCheckRequest { service: "readiness".to_owned() };
    assert_eq!(health.check(asked).await.unwrap().into_inner().status(), ServingStatus::NotServing);
    let all = health.list(HealthListRequest {}).await.unwrap().into_inner().statuses;
    assert!(all.values().all(|answer| answer.status() == ServingStatus::NotServing), "{all:?}");
    let plain = Plain::connect(service.address).await;
    let refusal = plain.call(method, &[], request).await.unwrap_err();
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unavailable, "STORE_AWAY"), "{refusal}");
    assert!(refusal.retry_after.is_some(), "{refusal}");
    let log = service.log();
    assert_eq!(log.matches("not ready, waiting for postgres").count(), 1, "{log}");
    assert!(log.contains(&place), "{log}");
    service.assert_is_well();
}

/// Waits until it is ready, and its call is answered.
async fn assert_serves(service: &Service, method: &str, request: &[u8]) -> Duration {
    let took = service.until("readiness SERVING").await;
    assert_eq!(service.get("/readyz").await.0, 200);
    let answer = Plain::connect(service.address).await.call(method, &[], request).await;
    if let Err(refusal) = answer {
        assert_eq!(refusal.code, Code::NotFound, "{refusal}");
    }
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_starts_while_postgres_is_away_waits_and_serves_when_it_answers() {
    let stack = own_stack().await;
    for (name, method, request) in services() {
        let migrated = Service::on(stack, name, &[], &[]).await;
        assert_serves(&migrated, method, &request).await;

        stack.postgres().kill().await;
        let mut service = migrated.another().await;
        assert_waits(&mut service, stack, method, &request).await;
        stack.postgres().start().await.unwrap();
        let killed = assert_serves(&service, method, &request).await;

        stack.postgres().pause();
        let mut service = migrated.another().await;
        assert_waits(&mut service, stack, method, &request).await;
        stack.postgres().resume();
        let stopped = assert_serves(&service, method, &request).await;
        say(&format!(
            "\n{name} ready {killed:.1?} after a killed Postgres answered, {stopped:.1?} after a stopped one\n"
        ));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_waits_for_postgres_ends_in_order_when_it_is_told_to() {
    let stack = own_stack().await;
    let services: Vec<_> = services().map(|(name, ..)| name).to_vec();
    for silent in [false, true] {
        let mut waiting = Vec::new();
        for name in &services {
            let migrated = Service::on(stack, name, &[], &[]).await;
            waiting.push(migrated);
        }
        if silent {
            stack.postgres().pause();
        } else {
            stack.postgres().kill().await;
        }
        for migrated in waiting {
            let mut service = migrated.another().await;
            let (code, entries) = service.get("/readyz").await;
            assert!(code == 503 && entries.contains("waiting for postgres at"), "{entries}");
            service.terminate();
            let status = service.ended(SOON).await;
            assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", service.log());
        }
        stack.postgres().resume();
        stack.postgres().start().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pending_migration_refuses_at_once_and_also_after_a_wait() {
    let stack = own_stack().await;
    let at_once = Service::refused(stack, "user", &[], &[("TIDINGS_MIGRATE", "false")]).await;
    assert!(at_once.log().contains("migration(s) are pending"));

    stack.postgres().kill().await;
    let (name, method, request) = &services()[0];
    assert_eq!(*name, "user");
    let mut later = at_once.another().await;
    assert_waits(&mut later, stack, method, request).await;
    stack.postgres().start().await.unwrap();
    later.refuses().await;
    assert!(later.log().contains("migration(s) are pending"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_not_there_refuses_at_once() {
    let stack = own_stack().await;
    let url = stack.postgres().url("nowhere");

    for (name, ..) in services() {
        let log = Service::refused(stack, name, &["--postgres-url", &url], &[]).await.log();
        assert!(log.contains("nowhere") && log.contains("does not exist"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_is_too_old_refuses_at_once() {
    let old = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://ada@{}/chat?sslmode=disable", old.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = old.accept().await {
            // AuthenticationOk, ParameterStatus, ReadyForQuery.
            let mut hello = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x18server_version\x0014.1\0".to_vec();
            hello.extend(b"Z\0\0\0\x05I");
            let mut startup = [0; 1024];
            let _ = client.read(&mut startup).await;
            let _ = client.write_all(&hello).await;
            let _ = client.read(&mut startup).await; // until it goes
        }
    });

    let log = Service::refused(own_stack().await, "user", &["--postgres-url", &url], &[]).await.log();

    assert!(log.contains("found postgres 14.1") && log.contains("need 15 or newer"), "{log}");
}
