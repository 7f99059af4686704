//! Startup with an unavailable or unusable Postgres.

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

use crate::hostile::grpc_client::GrpcClient;
use crate::service::{MAX_WAIT, TestService};
use crate::support::print_figures;

/// Returns the services that store data in Postgres, each with a method and request that reads it.
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

/// Asserts that a service waits for Postgres: in `/readyz`, gRPC health, call failures and its log.
async fn assert_waits_for_postgres(service: &mut TestService, stack: &Devstack, method: &str, request: &[u8]) {
    let location = format!("postgres://127.0.0.1:{}/{}", stack.postgres().port(), service.database());
    let waiting = format!("waiting for postgres at {location}: cannot connect to postgres at {location}: ");
    service.wait_for_health_start(&waiting).await;
    let (code, entries) = service.http_get("/readyz").await;
    let cause = entries.lines().find_map(|line| line.strip_prefix(&waiting)).unwrap();
    assert!(["refused", "no response within"].iter().any(|word| cause.contains(word)), "{entries}");
    assert_eq!(code, 503, "{entries}");
    assert!(entries.lines().all(|line| !line.ends_with(" SERVING")), "{entries}");
    assert_eq!(service.http_get("/livez").await.0, 200);

    // A silent server counts as unavailable only after 5 s, hence the wait above.
    let mut health = HealthClient::new(service.channel().await);
    let check = HealthCheckRequest { service: "readiness".to_owned() };
    assert_eq!(health.check(check).await.unwrap().into_inner().status(), ServingStatus::NotServing);
    let all = health.list(HealthListRequest {}).await.unwrap().into_inner().statuses;
    assert!(all.values().all(|response| response.status() == ServingStatus::NotServing), "{all:?}");
    let client = GrpcClient::connect(service.address).await;
    let refusal = client.call(method, &[], request).await.unwrap_err();
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unavailable, "STORE_AWAY"), "{refusal}");
    assert!(refusal.retry_after.is_some(), "{refusal}");
    let log = service.log();
    assert_eq!(log.matches("not ready, waiting for postgres").count(), 1, "{log}");
    assert!(log.contains(&location), "{log}");
    service.assert_running();
}

/// Waits until a service is ready and its call is answered; returns the time until it is ready.
async fn assert_serves(service: &TestService, method: &str, request: &[u8]) -> Duration {
    let took = service.wait_for_health("readiness SERVING").await;
    assert_eq!(service.http_get("/readyz").await.0, 200);
    let response = GrpcClient::connect(service.address).await.call(method, &[], request).await;
    if let Err(refusal) = response {
        assert_eq!(refusal.code, Code::NotFound, "{refusal}");
    }
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_waits_for_an_unavailable_postgres_and_then_serves() {
    let stack = own_stack().await;
    for (name, method, request) in services() {
        let migrated = TestService::start_on(stack, name, &[], &[]).await;
        assert_serves(&migrated, method, &request).await;

        stack.postgres().kill().await;
        let mut service = migrated.start_another().await;
        assert_waits_for_postgres(&mut service, stack, method, &request).await;
        stack.postgres().start().await.unwrap();
        let killed = assert_serves(&service, method, &request).await;

        stack.postgres().pause();
        let mut service = migrated.start_another().await;
        assert_waits_for_postgres(&mut service, stack, method, &request).await;
        stack.postgres().resume();
        let stopped = assert_serves(&service, method, &request).await;
        print_figures(&format!(
            "\n{name}: ready {killed:.1?} after the start of a killed Postgres, {stopped:.1?} after a stopped one resumed\n"
        ));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_waits_for_postgres_exits_with_0_on_sigterm() {
    let stack = own_stack().await;
    let services: Vec<_> = services().map(|(name, ..)| name).to_vec();
    for silent in [false, true] {
        let mut waiting = Vec::new();
        for name in &services {
            let migrated = TestService::start_on(stack, name, &[], &[]).await;
            waiting.push(migrated);
        }
        if silent {
            stack.postgres().pause();
        } else {
            stack.postgres().kill().await;
        }
        for migrated in waiting {
            let mut service = migrated.start_another().await;
            let (code, entries) = service.http_get("/readyz").await;
            assert!(code == 503 && entries.contains("waiting for postgres at"), "{entries}");
            service.terminate();
            let status = service.wait_for_exit(MAX_WAIT).await;
            assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", service.log());
        }
        stack.postgres().resume();
        stack.postgres().start().await.unwrap();
    }
}

/// Also if Postgres becomes available only later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pending_migration_prevents_the_start() {
    let stack = own_stack().await;
    let at_once = TestService::start_and_fail(stack, "user", &[], &[("TIDINGS_MIGRATE", "false")]).await;
    assert!(at_once.log().contains("migration(s) are pending"));

    stack.postgres().kill().await;
    let (name, method, request) = &services()[0];
    assert_eq!(*name, "user");
    let mut later = at_once.start_another().await;
    assert_waits_for_postgres(&mut later, stack, method, request).await;
    stack.postgres().start().await.unwrap();
    later.wait_for_failure().await;
    assert!(later.log().contains("migration(s) are pending"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_database_prevents_the_start() {
    let stack = own_stack().await;
    let url = stack.postgres().url("nowhere");

    for (name, ..) in services() {
        let log = TestService::start_and_fail(stack, name, &["--postgres-url", &url], &[]).await.log();
        assert!(log.contains("nowhere") && log.contains("does not exist"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_of_another_service_prevents_the_start() {
    let stack = own_stack().await;
    let history = TestService::start_on(stack, "history", &[], &[]).await;
    history.wait_for_health("readiness SERVING").await;
    let url = stack.postgres().url(history.database());

    let log = TestService::start_and_fail(stack, "user", &["--postgres-url", &url], &[]).await.log();

    assert!(log.contains("belongs to the service history, this is user: set --postgres-url"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_is_too_old_prevents_the_start() {
    let old_server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://ada@{}/chat?sslmode=disable", old_server.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = old_server.accept().await {
            // AuthenticationOk, ParameterStatus, ReadyForQuery.
            let mut hello = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x18server_version\x0014.1\0".to_vec();
            hello.extend(b"Z\0\0\0\x05I");
            let mut startup = [0; 1024];
            let _ = client.read(&mut startup).await;
            let _ = client.write_all(&hello).await;
            let _ = client.read(&mut startup).await; // until it disconnects
        }
    });

    let log = TestService::start_and_fail(own_stack().await, "user", &["--postgres-url", &url], &[]).await.log();

    assert!(log.contains("found postgres 14.1") && log.contains("need 15 or newer"), "{log}");
}
