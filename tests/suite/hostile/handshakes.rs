//! Clients that stall their TLS handshake: the handshake times out and delays no other one.

use std::fs;
use std::time::Duration;

use futures_util::future::join_all;
use tidings_client::{CredentialFiles, Credentials, Endpoints};
use tidings_proto::user::GetUserRequest;
use tidings_proto::user::user_service_client::UserServiceClient;
use tokio::time::{Instant, interval};
use tonic::Code;

use super::raw_connection::RawConnection;
use crate::service::{MAX_WAIT, TestService};

/// Concurrent clients that stall.
const STALLED_CLIENTS: usize = 200;
/// Longest duration of a handshake (default of the service).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Allowance for a busy machine.
const SLACK: Duration = Duration::from_secs(5);
/// Interval in which a slow client sends a byte.
const BYTE_INTERVAL: Duration = Duration::from_millis(200);
/// Header of a TLS record that announces a ClientHello of 512 bytes (RFC 8446, 5.1 and 4).
const HELLO: [u8; 9] = [22, 3, 1, 2, 0, 1, 0, 1, 252];

/// Sends nothing, or one byte per [`BYTE_INTERVAL`], until the server closes the connection.
/// Returns the lifetime of the connection.
async fn stall(service: &TestService, bytes: &[u8]) -> Duration {
    let start = Instant::now();
    let mut connection = RawConnection::connect_tcp(service.address).await;
    let mut ticks = interval(BYTE_INTERVAL);
    for byte in bytes {
        ticks.tick().await;
        if connection.send(&[*byte]).await.is_err() {
            return start.elapsed();
        }
    }
    connection.read_to_end(MAX_WAIT).await;
    start.elapsed()
}

/// New connections complete their handshakes while 200 others stall.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_handshake_times_out_and_delays_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(path("cert.pem"), certified.cert.pem()).unwrap();
    fs::write(path("key.pem"), certified.signing_key.serialize_pem()).unwrap();
    let file = |name: &str| path(name).to_str().unwrap().to_owned();
    let variables = [("TIDINGS_TLS_CERT", file("cert.pem")), ("TIDINGS_TLS_KEY", file("key.pem"))];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut service = TestService::start_with_env("user", &[], &variables).await;
    let files = service.open_files();

    let partial_hello = [&HELLO[..], &[0; 60]].concat();
    let stalled = join_all(
        (0..STALLED_CLIENTS).map(|client| stall(&service, if client % 2 == 0 { &[] } else { &partial_hello })),
    );
    let background = async {
        let address = format!("https://{}", service.address).parse().unwrap();
        let trusted = CredentialFiles { ca: Some(path("cert.pem")), ..CredentialFiles::default() };
        let credentials = Credentials::open(&trusted, &address).unwrap();
        let until = Instant::now() + HANDSHAKE_TIMEOUT;
        let mut answered = 0;
        while Instant::now() < until {
            // New endpoints have no connection yet: each call makes a handshake.
            let channel = Endpoints::secured(&address, &credentials).pick().channel();
            let request = GetUserRequest { id: "nobody".to_owned(), ..GetUserRequest::default() };
            let status = UserServiceClient::new(channel).get_user(request).await.unwrap_err();
            assert_eq!(status.code(), Code::NotFound, "{status}");
            answered += 1;
        }
        answered
    };
    let (lifetime, answered) = tokio::join!(stalled, background);

    for lifetime in lifetime {
        assert!(
            lifetime >= HANDSHAKE_TIMEOUT && lifetime < HANDSHAKE_TIMEOUT + SLACK,
            "a stalled handshake ended after {lifetime:?}"
        );
    }
    assert!(answered >= 10, "only {answered} calls were answered meanwhile");
    service.wait_for_open_files(files + 20, MAX_WAIT).await;
    service.assert_running();
}
