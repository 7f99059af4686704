//! A password of Postgres that changes while a service runs.

use std::fs;

use prost::Message as _;
use tidings_devstack::{Devstack, testing};
use tidings_proto::user::GetUserRequest;
use tonic::Code;

use crate::hostile::grpc_client::GrpcClient;
use crate::service::TestService;

/// Lets the role `app`, a superuser, log in with a password only.
async fn require_password(stack: &Devstack, password: &str) {
    let admin = stack.postgres().maintenance_url();
    testing::execute(&admin, &format!("CREATE ROLE app SUPERUSER LOGIN PASSWORD '{password}'")).await;
    let rules = "VALUES (''host all app 127.0.0.1/32 scram-sha-256''), (''host all all 127.0.0.1/32 trust'')";
    let write = format!("DO $$ BEGIN EXECUTE format('COPY ({rules}) TO %L', current_setting('hba_file')); END $$");
    testing::execute(&admin, &write).await;
    testing::execute(&admin, "SELECT pg_reload_conf()").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_password_needs_no_restart() {
    let stack: &Devstack = Box::leak(Box::new(testing::own_stack().await));
    require_password(stack, "old-secret").await;
    stack.postgres().create_database("rotated").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("url");
    let write = |password: &str| {
        let url = stack.postgres().url("rotated").replace("tidings@", &format!("app:{password}@"));
        fs::write(&file, url + "\n").unwrap();
    };
    write("old-secret");
    let variables = [("TIDINGS_POSTGRES_URL_FILE", file.to_str().unwrap())];
    let service = TestService::start_on(stack, "user", &[], &variables).await;
    service.wait_for_health("tidings.user.v1.UserService SERVING").await;
    let get = GetUserRequest { id: "ada".to_owned(), ..Default::default() }.encode_to_vec();
    let client = GrpcClient::connect(service.address).await;
    let call = async || client.call("/tidings.user.v1.UserService/GetUser", &[], &get).await.unwrap_err();
    assert_eq!(call().await.code, Code::NotFound);

    let admin = stack.postgres().maintenance_url();
    testing::execute(&admin, "ALTER ROLE app PASSWORD 'new-secret'").await;
    testing::execute(&admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'").await;
    service.wait_for_health("tidings.user.v1.UserService NOT_SERVING").await;
    let (ready, entries) = service.http_get("/readyz").await;
    assert_eq!(ready, 200, "{entries}");
    let reason = entries.lines().find(|line| line.starts_with("postgres NOT_SERVING (")).unwrap();
    assert!(reason.contains("password authentication failed for user \"app\" (28P01)"), "{entries}");
    let refusal = call().await;
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unavailable, "STORE_AWAY"), "{refusal}");

    write("new-secret");
    service.wait_for_health("tidings.user.v1.UserService SERVING").await;
    assert_eq!(call().await.code, Code::NotFound);
    let log = service.log();
    assert!(log.contains("connected to postgres") && log.contains("prefer"), "{log}");
    assert!(!log.contains("secret") && !entries.contains("secret"), "{log}");
}
