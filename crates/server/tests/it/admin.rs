//! What Prometheus and Kubernetes ask for.

use std::net::SocketAddr;
use std::time::Duration;

use tidings_server::health::State;
use tidings_server::{Args, Health};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::{Running, SOON, call, follow, quick};

/// A server with an address for probes. Nobody else gets the port in between, as the tests that want one ask in turn.
async fn start(args: Args) -> (Running, SocketAddr) {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let server = Running::with(Args { admin_listen: Some(address), ..args }).await;
    while TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (server, address)
}

/// Numbers are those of the process: the tests that look at them take turns.
static NUMBERS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The code and the body of an answer.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: tidings\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The value of a line of numbers.
fn value(numbers: &str, line: &str) -> Option<f64> {
    numbers.lines().find_map(|text| text.strip_prefix(line)?.trim().parse().ok())
}

#[tokio::test]
async fn it_lives_and_is_ready_until_it_is_told_to_stop() {
    let (server, address) = start(Args { lame_duck: Duration::from_mins(1).into(), ..quick() }).await;
    assert_eq!(get(address, "/livez").await.0, 200);
    let (code, entries) = get(address, "/readyz").await;
    assert_eq!((code, entries.as_str()), (200, "server SERVING\nreadiness SERVING\ntest.v1.Probe SERVING\n"));

    server.health.set("test.v1.Probe", State::NotServing);
    assert_eq!(get(address, "/readyz").await.0, 200, "what it can not do now makes it no other instance's business");
    server.health.set(Health::READINESS, State::NotServing);
    assert_eq!(get(address, "/readyz").await.0, 503);
    server.health.set(Health::READINESS, State::Serving);
    assert_eq!(get(address, "/readyz").await.0, 200);

    server.shutdown.cancel();
    while get(address, "/readyz").await.0 == 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(get(address, "/livez").await.0, 200, "it lives until it ends");
}

#[tokio::test]
async fn calls_are_counted_by_method_and_code_and_every_pair_is_there_from_the_start() {
    let _turn = NUMBERS.lock().await;
    let (server, address) = start(quick()).await;
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
    assert!(!after.contains("no.such"), "names of callers are no labels");
}

#[tokio::test]
async fn what_it_does_right_now_is_measured_when_somebody_asks() {
    let _turn = NUMBERS.lock().await;
    let (server, address) = start(quick()).await;
    let (one, two) = (server.channel().await, server.channel().await);
    tokio::spawn(async move { call(&one, "/test.v1.Probe/Work").await });
    tokio::spawn(async move { follow(&two, "/test.v1.Probe/Stream").await });
    server.probe.runs(2).await;

    let numbers = get(address, "/metrics").await.1;

    assert_eq!(value(&numbers, "tidings_server_calls_in_flight"), Some(1.0));
    assert_eq!(value(&numbers, "tidings_server_streams"), Some(1.0));
    assert!(value(&numbers, "tidings_server_connections") >= Some(2.0), "the other tests have some, too");
}

#[tokio::test]
async fn anything_else_is_not_found() {
    let (_server, address) = start(quick()).await;

    assert_eq!(get(address, "/debug").await.0, 404);
}

#[tokio::test]
async fn an_address_that_is_taken_is_an_error_that_names_the_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let args = Args { admin_listen: Some(taken.local_addr().unwrap()), ..quick() };

    let error = tidings_server::Server::new(&args).serve(listener, tokio_util::sync::CancellationToken::new()).await;

    assert!(error.unwrap_err().to_string().contains("--admin-listen"));
}
