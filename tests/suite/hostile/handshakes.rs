//! Clients that begin TLS and go no further: their handshakes end, and those of others go on meanwhile.

use std::fs;
use std::time::Duration;

use futures_util::future::join_all;
use tidings_client::{Credentials, Endpoints, Files};
use tidings_proto::user::GetUserRequest;
use tidings_proto::user::user_service_client::UserServiceClient;
use tokio::time::{Instant, interval};
use tonic::Code;

use super::raw::Raw;
use crate::service::{SOON, Service};

/// How many stall at a time.
const CLIENTS: usize = 200;
/// How long a handshake may take.
const LIMIT: Duration = Duration::from_secs(5);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(5);
/// How often a slow client sends a byte.
const PACE: Duration = Duration::from_millis(200);
/// The head of a TLS record that promises 512 bytes of a ClientHello (RFC 8446, 5.1 and 4).
const HELLO: [u8; 9] = [22, 3, 1, 2, 0, 1, 0, 1, 252];

/// Sends nothing, or a byte now and then, until the server closes the connection. Returns how long it lived.
async fn stall(service: &Service, bytes: &[u8]) -> Duration {
    let start = Instant::now();
    let mut raw = Raw::silent(service.address).await;
    let mut pace = interval(PACE);
    for byte in bytes {
        pace.tick().await;
        if raw.send(&[*byte]).await.is_err() {
            return start.elapsed();
        }
    }
    raw.rest(SOON).await;
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_stalls_ends_after_its_time_and_others_are_let_in_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(path("cert.pem"), certified.cert.pem()).unwrap();
    fs::write(path("key.pem"), certified.signing_key.serialize_pem()).unwrap();
    let file = |name: &str| path(name).to_str().unwrap().to_owned();
    let variables = [("TIDINGS_TLS_CERT", file("cert.pem")), ("TIDINGS_TLS_KEY", file("key.pem"))];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut service = Service::with("user", &[], &variables).await;
    let files = service.files();

    let dribble = [&HELLO[..], &[0; 60]].concat();
    let stalled = join_all((0..CLIENTS).map(|client| stall(&service, if client % 2 == 0 { &[] } else { &dribble })));
    let victim = async {
        let address = format!("https://{}", service.address).parse().unwrap();
        let trusted = Files { ca: Some(path("cert.pem")), ..Files::default() };
        let credentials = Credentials::open(&trusted, &address).unwrap();
        let until = Instant::now() + LIMIT;
        let mut answered = 0;
        while Instant::now() < until {
            // A handshake for each call: the stack is made anew each time.
            let channel = Endpoints::secured(&address, &credentials).pick().channel();
            let request = GetUserRequest { id: "nobody".to_owned(), ..GetUserRequest::default() };
            let told = UserServiceClient::new(channel).get_user(request).await.unwrap_err();
            assert_eq!(told.code(), Code::NotFound, "{told}");
            answered += 1;
        }
        answered
    };
    let (lived, answered) = tokio::join!(stalled, victim);

    for lived in lived {
        assert!(lived >= LIMIT && lived < LIMIT + SLACK, "lived {lived:?}");
    }
    assert!(answered >= 10, "{answered} calls were answered meanwhile");
    service.files_fall_to(files + 20, SOON).await;
    service.assert_is_well();
}
