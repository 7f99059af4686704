//! The admin endpoints: metrics, liveness, readiness.

use std::net::SocketAddr;
use std::time::Duration;

use tidings_server::health::HealthState;
use tidings_server::{Args, Health};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::{SOON, TestServer, call, follow, no_lame_duck};

/// Starts a server with an admin address on a free port, which is found by binding and releasing
/// it. Another process is unlikely to take it in between.
async fn start(args: Args) -> (TestServer, SocketAddr) {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let server = TestServer::with(Args { admin_listen: Some(address), ..args }).await;
    while TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (server, address)
}

/// Serializes the tests that read metrics, because metrics belong to the process.
static METRICS_TESTS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Returns the status code and the body of a response.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: tidings\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    timeout(SOON, stream.read_to_string(&mut response)).await.unwrap().unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Returns the value of a metrics line.
fn value(metrics: &str, line: &str) -> Option<f64> {
    metrics.lines().find_map(|text| text.strip_prefix(line)?.trim().parse().ok())
}

/// A probe has a second; the server closes a silent connection after five.
#[tokio::test]
async fn silent_connections_do_not_keep_a_probe_out() {
    let (_server, address) = start(no_lame_duck()).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }

    let live = timeout(Duration::from_secs(4), get(address, "/livez")).await;

    assert_eq!(live.unwrap().0, 200);
    let oldest = timeout(SOON, silent[0].read(&mut [0; 1])).await.unwrap();
    assert!(matches!(oldest, Ok(0) | Err(_)), "the oldest connection is still open");
}

#[tokio::test]
async fn the_server_is_live_and_ready_until_shutdown() {
    let (server, address) = start(Args { lame_duck: Duration::from_mins(1).into(), ..no_lame_duck() }).await;
    assert_eq!(get(address, "/livez").await.0, 200);
    let (code, entries) = get(address, "/readyz").await;
    assert_eq!((code, entries.as_str()), (200, "server SERVING\nreadiness SERVING\ntest.v1.Probe SERVING\n"));

    server.health.set("test.v1.Probe", HealthState::NotServing);
    assert_eq!(get(address, "/readyz").await.0, 200, "the health of a service does not affect readiness");
    server.health.set(Health::READINESS, HealthState::NotServing);
    assert_eq!(get(address, "/readyz").await.0, 503);
    server.health.set(Health::READINESS, HealthState::Serving);
    assert_eq!(get(address, "/readyz").await.0, 200);

    server.shutdown.cancel();
    while get(address, "/readyz").await.0 == 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(get(address, "/livez").await.0, 200, "it is live until it ends");
}

/// Every pair of method and code is exported from the start.
#[tokio::test]
async fn calls_are_counted_by_method_and_code() {
    let _exclusive = METRICS_TESTS.lock().await;
    let (server, address) = start(no_lame_duck()).await;
    let labels = r#"grpc_type="unary",grpc_service="test.v1.Probe",grpc_method="Answer""#;
    let ok = format!(r#"grpc_server_handled_total{{{labels},grpc_code="OK"}}"#);
    let before = get(address, "/metrics").await.1;
    for code in ["OK", "Canceled", "DeadlineExceeded", "Unauthenticated"] {
        let line = format!(r#"grpc_server_handled_total{{{labels},grpc_code="{code}"}}"#);
        assert!(value(&before, &line).is_some(), "{line} is not in {before}");
    }

    let channel = server.channel().await;
    call(&channel, "/test.v1.Probe/Answer").await.unwrap();
    call(&channel, "/test.v1.Probe/Panic").await.unwrap_err();
    call(&channel, "/no.such.Service/Method").await.unwrap_err();

    let after = get(address, "/metrics").await.1;
    assert!(value(&after, &ok) > value(&before, &ok), "{after}");
    let seconds = format!("grpc_server_handling_seconds_count{{{labels}}}");
    assert!(value(&after, &seconds) >= Some(1.0), "{after}");
    assert!(value(&after, "tidings_server_panics_total") >= Some(1.0), "{after}");
    assert!(value(&after, "tidings_server_connections") >= Some(1.0), "{after}");
    let other = r#"grpc_server_started_total{grpc_type="unary",grpc_service="_other",grpc_method="_other"}"#;
    assert!(value(&after, other) >= Some(1.0), "{after}");
    assert!(!after.contains("no.such"), "unknown method names must not become labels");
}

#[tokio::test]
async fn gauges_show_the_calls_and_streams_of_the_moment() {
    let _exclusive = METRICS_TESTS.lock().await;
    let (server, address) = start(no_lame_duck()).await;
    let (one, two) = (server.channel().await, server.channel().await);
    tokio::spawn(async move { call(&one, "/test.v1.Probe/Work").await });
    tokio::spawn(async move { follow(&two, "/test.v1.Probe/Stream").await });
    server.probe.runs(2).await;

    let metrics = get(address, "/metrics").await.1;

    assert_eq!(value(&metrics, "tidings_server_calls_in_flight"), Some(1.0));
    assert_eq!(value(&metrics, "tidings_server_streams"), Some(1.0));
    assert!(value(&metrics, "tidings_server_connections") >= Some(2.0), "other tests have connections, too");
}

#[tokio::test]
async fn other_paths_are_not_found() {
    let (_server, address) = start(no_lame_duck()).await;

    assert_eq!(get(address, "/debug").await.0, 404);
}

#[tokio::test]
async fn a_used_admin_address_is_an_error_that_names_the_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let args = Args { admin_listen: Some(taken.local_addr().unwrap()), ..no_lame_duck() };

    let error = tidings_server::Server::new(&args).serve(listener, tokio_util::sync::CancellationToken::new()).await;

    assert!(error.unwrap_err().to_string().contains("--admin-listen"));
}
