//! TLS handshakes, client certificates, and rotation of certificates under load.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusBuilder;
use tidings_client::{CredentialFiles, Credentials, Endpoints};
use tidings_server::{Args, security, tls};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tonic::Status;
use tonic::transport::Channel;

use crate::log::CapturedLog;
use crate::support::pki::{CertAndKey, SecretMount, TestCa};
use crate::support::{SOON, TestServer, call, no_lame_duck};

/// Interval at which the server polls its files.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const ANSWER: &str = "/test.v1.Probe/Answer";

/// A server with TLS, and the CA of its certificate.
struct TlsServer {
    server: TestServer,
    ca: TestCa,
    mount: SecretMount,
}

impl TlsServer {
    async fn start() -> Self {
        Self::with(|_| tls::Args::default()).await
    }

    /// Starts a server that requires client certificates of its CA; with `names`, they must carry
    /// one of them.
    async fn mutual(names: &[&str]) -> Self {
        let names = names.iter().map(|name| name.parse().unwrap()).collect();
        Self::with(|mount| tls::Args {
            tls_client_ca: Some(mount.path("ca.pem")),
            tls_client_san: names,
            ..tls::Args::default()
        })
        .await
    }

    async fn with(args: impl FnOnce(&SecretMount) -> tls::Args) -> Self {
        let ca = TestCa::new();
        let mount = SecretMount::new(&files(&ca.pem(), &ca.server()));
        let tls = tls::Args {
            tls_cert: Some(mount.path("tls.crt")),
            tls_key: Some(mount.path("tls.key")),
            tls_timeout: Duration::from_millis(200).into(),
            ..args(&mount)
        };
        let security = security::Args { tls, file_poll_interval: POLL_INTERVAL, ..security::Args::default() };
        Self { server: TestServer::with(Args { security, ..no_lame_duck() }).await, ca, mount }
    }

    /// Calls over a new connection with this client certificate.
    async fn call(&self, identity: Option<&CertAndKey>) -> Result<(), Status> {
        call(&self.channel(identity), ANSWER).await.map(drop)
    }

    fn channel(&self, identity: Option<&CertAndKey>) -> Channel {
        let mount = identity.map(|pair| SecretMount::new(&files(&self.ca.pem(), pair)));
        self.channel_from(mount.as_ref())
    }

    /// Returns a channel that loads the certificate from the files at each connect.
    fn channel_from(&self, identity: Option<&SecretMount>) -> Channel {
        let files = CredentialFiles {
            ca: Some(self.mount.path("ca.pem")),
            cert: identity.map(|mount| mount.path("tls.crt")),
            key: identity.map(|mount| mount.path("tls.key")),
            token: None,
        };
        let address = format!("https://{}", self.server.address).parse().unwrap();
        let credentials = Credentials::open(&files, &address).unwrap();
        Endpoints::secured(&address, &credentials).pick().channel()
    }

    /// Opens a TLS connection without any HTTP/2 frame.
    async fn connect(&self, identity: Option<&CertAndKey>) -> io::Result<TlsStream<TcpStream>> {
        self.connect_in(&TLS13, identity).await
    }

    async fn connect_in(
        &self,
        version: &'static SupportedProtocolVersion,
        identity: Option<&CertAndKey>,
    ) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.server.address).await?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.pem().as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[version]).unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![pair.der.clone().into()], key).unwrap()
            }
        };
        config.alpn_protocols.push(b"h2".to_vec());
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Returns the certificate that the server presents on a new connection.
    async fn presented_certificate(&self) -> Vec<u8> {
        let stream = self.connect(None).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }

    fn replace(&self, pair: &CertAndKey) {
        self.mount.replace(&files(&self.ca.pem(), pair));
    }
}

fn files<'a>(ca: &'a str, pair: &'a CertAndKey) -> [(&'static str, &'a str); 3] {
    [("ca.pem", ca), ("tls.crt", &pair.cert), ("tls.key", &pair.key)]
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_served_with_alpn_h2() {
    let secure = TlsServer::start().await;

    secure.call(None).await.unwrap();

    for version in [&TLS12, &TLS13] {
        let stream = secure.connect_in(version, None).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "{version:?}");
    }
}

#[tokio::test]
async fn a_client_without_tls_is_disconnected() {
    let secure = TlsServer::start().await;
    let endpoint = Channel::from_shared(format!("http://{}", secure.server.address)).unwrap();

    call(&endpoint.connect_lazy(), ANSWER).await.unwrap_err();

    let mut raw = secure.server.raw().await;
    assert!(!raw.receives(crate::support::raw_http2::SETTINGS).await);
}

#[tokio::test]
async fn a_handshake_that_stalls_is_closed_after_the_timeout() {
    let secure = TlsServer::start().await;
    let mut socket = TcpStream::connect(secure.server.address).await.unwrap();
    let start = Instant::now();

    let read = timeout(SOON, socket.read(&mut [0; 1])).await.unwrap();

    assert_eq!(read.unwrap(), 0);
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
}

#[tokio::test]
async fn mutual_tls_serves_only_certificates_of_the_ca() {
    let secure = TlsServer::mutual(&[]).await;

    secure.call(None).await.unwrap_err();
    secure.call(Some(&TestCa::new().sign(&["gateway.chat"]))).await.unwrap_err();
    secure.call(Some(&secure.ca.sign(&["gateway.chat"]))).await.unwrap();
}

#[tokio::test]
async fn a_client_certificate_must_carry_an_allowed_name() {
    let secure = TlsServer::mutual(&["gateway.chat", "spiffe://chat/bots"]).await;

    for names in [&["gateway.chat"][..], &["other", "spiffe://chat/bots"]] {
        secure.call(Some(&secure.ca.sign(names))).await.unwrap();
    }
    for names in [&["evil.chat"][..], &["spiffe://chat/bots/evil"], &[]] {
        let pair = secure.ca.sign(names);
        secure.call(Some(&pair)).await.unwrap_err();
        let mut stream = secure.connect(Some(&pair)).await.unwrap(); // succeeds for the client, as TLS 1.3 allows
        let error = timeout(SOON, stream.read(&mut [0; 1])).await.unwrap().unwrap_err();
        assert!(error.to_string().contains("AccessDenied"), "{error}");
    }
}

#[tokio::test]
async fn clients_of_another_ca_are_served_once_the_file_has_it() {
    let secure = TlsServer::mutual(&[]).await;
    let other = TestCa::new();
    let client = other.sign(&["gateway.chat"]);
    secure.call(Some(&client)).await.unwrap_err();

    let both = secure.ca.pem() + &other.pem();
    secure.mount.replace(&files(&both, &secure.ca.server()));

    let served = async {
        while secure.call(Some(&client)).await.is_err() {
            sleep(POLL_INTERVAL).await;
        }
    };
    timeout(SOON, served).await.unwrap();
}

#[tokio::test]
async fn a_client_loads_its_certificate_at_each_connect() {
    let secure = TlsServer::mutual(&["gateway.chat"]).await;
    let mount = SecretMount::new(&files("", &secure.ca.sign(&["old.chat"])));
    let channel = secure.channel_from(Some(&mount));
    call(&channel, ANSWER).await.unwrap_err();

    mount.replace(&files("", &secure.ca.sign(&["gateway.chat"])));

    let served = async {
        while call(&channel, ANSWER).await.is_err() {
            sleep(POLL_INTERVAL).await;
        }
    };
    timeout(SOON, served).await.unwrap();
}

/// Sends calls from eight clients until `stop`; four of them reconnect for each call. Returns the
/// number of successful calls, and the errors of the others.
async fn load(secure: &TlsServer, stop: &AtomicBool) -> (usize, Vec<Status>) {
    let answered = AtomicUsize::new(0);
    let client = async |reconnects: bool| {
        let mut channel = secure.channel(None);
        let mut failures = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            if reconnects {
                channel = secure.channel(None);
            }
            match call(&channel, ANSWER).await {
                Ok(_) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                Err(status) => failures.push(status),
            }
        }
        failures
    };
    let failures = futures_util::future::join_all((0..8).map(|index| client(index % 2 == 0))).await;
    (answered.into_inner(), failures.concat())
}

/// New connections get the newest certificate.
#[tokio::test]
async fn fifty_rotations_under_load_fail_no_call() {
    let secure = TlsServer::start().await;
    let stop = AtomicBool::new(false);

    let rotating = async {
        for _ in 0..50 {
            let pair = secure.ca.server();
            secure.replace(&pair);
            let seen = async {
                while secure.presented_certificate().await != pair.der {
                    sleep(POLL_INTERVAL).await;
                }
            };
            timeout(SOON, seen).await.unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    };
    let ((answered, failures), ()) = tokio::join!(load(&secure, &stop), rotating);

    assert!(failures.is_empty(), "{} of {answered}, the first: {:?}", failures.len(), failures[0]);
    assert!(answered > 500, "{answered}");
}

// One thread runs the whole test, so its subscriber and recorder see the whole server.
/// The previous pair stays in use, and the failure is counted.
#[tokio::test(flavor = "current_thread")]
async fn a_mismatched_pair_is_logged_once_and_not_used() {
    let lines = CapturedLog::default();
    let _guard = lines.capture("tidings_server=info");
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let secure = TlsServer::start().await;
    let before = secure.presented_certificate().await;
    let reloads = async |outcome: &str, count: u32| {
        let line = format!("tidings_server_tls_reloads_total{{outcome=\"{outcome}\"}} {count}\n");
        let counted = async {
            while !metrics.render().contains(&line) {
                sleep(POLL_INTERVAL).await;
            }
        };
        timeout(SOON, counted).await.unwrap();
    };

    let broken = CertAndKey { key: secure.ca.server().key, ..secure.ca.server() };
    secure.replace(&broken);
    reloads("failed", 1).await;
    secure.call(None).await.unwrap();
    assert!(secure.presented_certificate().await == before);
    sleep(5 * POLL_INTERVAL).await;
    let text = lines.text();
    let [line] = text.lines().filter(|line| line.contains("ERROR")).collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert!(line.contains("reload failed, keeping the previous content"), "{line}");
    assert!(line.contains("tls.key: expected the key of the certificate, got another"), "{line}");

    secure.replace(&secure.ca.server());
    reloads("ok", 1).await;
    reloads("failed", 1).await;
    assert!(secure.presented_certificate().await != before);
    assert!(
        metrics.render().contains("tidings_server_tls_certificate_expiry_timestamp_seconds "),
        "{}",
        metrics.render()
    );
}
