//! Who is let in over TLS, and that certificates may change under load.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusBuilder;
use tidings_client::{Credentials, Endpoints, Files};
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

use crate::log::Lines;
use crate::support::pki::{Ca, Mount, Pair};
use crate::support::{Running, SOON, call, quick};

/// How often the server of a test looks at its files.
const LOOK: Duration = Duration::from_millis(20);
const ANSWER: &str = "/test.v1.Probe/Answer";

/// A server that speaks TLS, and whoever signed its certificate.
struct Secure {
    server: Running,
    ca: Ca,
    mount: Mount,
}

impl Secure {
    async fn start() -> Self {
        Self::with(|_| tls::Args::default()).await
    }

    /// A server that lets in only clients that its CA has signed, with one of these names if there are any.
    async fn mutual(names: &[&str]) -> Self {
        let names = names.iter().map(|name| name.parse().unwrap()).collect();
        Self::with(|mount| tls::Args {
            tls_client_ca: Some(mount.path("ca.pem")),
            tls_client_san: names,
            ..tls::Args::default()
        })
        .await
    }

    async fn with(args: impl FnOnce(&Mount) -> tls::Args) -> Self {
        let ca = Ca::new();
        let mount = Mount::new(&files(&ca.pem(), &ca.server()));
        let tls = tls::Args {
            tls_cert: Some(mount.path("tls.crt")),
            tls_key: Some(mount.path("tls.key")),
            tls_timeout: Duration::from_millis(200).into(),
            ..args(&mount)
        };
        let security = security::Args { tls, look: LOOK, ..security::Args::default() };
        Self { server: Running::with(Args { security, ..quick() }).await, ca, mount }
    }

    /// Calls over a connection of its own, showing this certificate.
    async fn call(&self, identity: Option<&Pair>) -> Result<(), Status> {
        call(&self.channel(identity), ANSWER).await.map(drop)
    }

    fn channel(&self, identity: Option<&Pair>) -> Channel {
        let mount = identity.map(|pair| Mount::new(&files(&self.ca.pem(), pair)));
        self.channel_from(mount.as_ref())
    }

    /// Calls with the pair that the files hold when it connects.
    fn channel_from(&self, identity: Option<&Mount>) -> Channel {
        let files = Files {
            ca: Some(self.mount.path("ca.pem")),
            cert: identity.map(|mount| mount.path("tls.crt")),
            key: identity.map(|mount| mount.path("tls.key")),
            token: None,
        };
        let address = format!("https://{}", self.server.address).parse().unwrap();
        let credentials = Credentials::open(&files, &address).unwrap();
        Endpoints::secured(&address, &credentials).pick().channel()
    }

    /// A connection on which nothing was said yet.
    async fn connect(&self, identity: Option<&Pair>) -> io::Result<TlsStream<TcpStream>> {
        self.connect_in(&TLS13, identity).await
    }

    async fn connect_in(
        &self,
        version: &'static SupportedProtocolVersion,
        identity: Option<&Pair>,
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

    /// The certificate that a new connection is shown.
    async fn shown(&self) -> Vec<u8> {
        let stream = self.connect(None).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }

    fn exchange(&self, pair: &Pair) {
        self.mount.exchange(&files(&self.ca.pem(), pair));
    }
}

fn files<'a>(ca: &'a str, pair: &'a Pair) -> [(&'static str, &'a str); 3] {
    [("ca.pem", ca), ("tls.crt", &pair.cert), ("tls.key", &pair.key)]
}

#[tokio::test]
async fn a_client_with_the_right_ca_is_served_over_tls_1_2_and_1_3_and_http2_is_agreed_on() {
    let secure = Secure::start().await;

    secure.call(None).await.unwrap();

    for version in [&TLS12, &TLS13] {
        let stream = secure.connect_in(version, None).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "{version:?}");
    }
}

#[tokio::test]
async fn a_client_that_speaks_no_tls_is_closed() {
    let secure = Secure::start().await;
    let endpoint = Channel::from_shared(format!("http://{}", secure.server.address)).unwrap();

    call(&endpoint.connect_lazy(), ANSWER).await.unwrap_err();

    let mut raw = secure.server.raw().await;
    assert!(!raw.receives(crate::support::raw::SETTINGS).await);
}

#[tokio::test]
async fn a_handshake_that_stalls_is_closed_after_the_timeout() {
    let secure = Secure::start().await;
    let mut socket = TcpStream::connect(secure.server.address).await.unwrap();
    let start = Instant::now();

    let read = timeout(SOON, socket.read(&mut [0; 1])).await.unwrap();

    assert_eq!(read.unwrap(), 0);
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
}

#[tokio::test]
async fn where_client_certificates_are_asked_for_nobody_is_served_without_one_that_the_ca_has_signed() {
    let secure = Secure::mutual(&[]).await;

    secure.call(None).await.unwrap_err();
    secure.call(Some(&Ca::new().sign(&["gateway.chat"]))).await.unwrap_err();
    secure.call(Some(&secure.ca.sign(&["gateway.chat"]))).await.unwrap();
}

#[tokio::test]
async fn where_names_are_given_a_client_certificate_must_carry_one_of_them() {
    let secure = Secure::mutual(&["gateway.chat", "spiffe://chat/bots"]).await;

    for names in [&["gateway.chat"][..], &["other", "spiffe://chat/bots"]] {
        secure.call(Some(&secure.ca.sign(names))).await.unwrap();
    }
    for names in [&["evil.chat"][..], &["spiffe://chat/bots/evil"], &[]] {
        let pair = secure.ca.sign(names);
        secure.call(Some(&pair)).await.unwrap_err();
        let mut stream = secure.connect(Some(&pair)).await.unwrap(); // by the client's part of the handshake
        let error = timeout(SOON, stream.read(&mut [0; 1])).await.unwrap().unwrap_err();
        assert!(error.to_string().contains("AccessDenied"), "{error}");
    }
}

#[tokio::test]
async fn clients_of_another_ca_are_let_in_when_the_file_of_cas_has_it() {
    let secure = Secure::mutual(&[]).await;
    let other = Ca::new();
    let client = other.sign(&["gateway.chat"]);
    secure.call(Some(&client)).await.unwrap_err();

    let both = secure.ca.pem() + &other.pem();
    secure.mount.exchange(&files(&both, &secure.ca.server()));

    let served = async {
        while secure.call(Some(&client)).await.is_err() {
            sleep(LOOK).await;
        }
    };
    timeout(SOON, served).await.unwrap();
}

#[tokio::test]
async fn a_client_shows_the_certificate_that_its_file_holds_when_it_connects() {
    let secure = Secure::mutual(&["gateway.chat"]).await;
    let mount = Mount::new(&files("", &secure.ca.sign(&["old.chat"])));
    let channel = secure.channel_from(Some(&mount));
    call(&channel, ANSWER).await.unwrap_err();

    mount.exchange(&files("", &secure.ca.sign(&["gateway.chat"])));

    let served = async {
        while call(&channel, ANSWER).await.is_err() {
            sleep(LOOK).await;
        }
    };
    timeout(SOON, served).await.unwrap();
}

/// Calls from eight clients, four of which connect anew for each, until `stop`. Returns how many were answered, and how the
/// others failed.
async fn load(secure: &Secure, stop: &AtomicBool) -> (usize, Vec<Status>) {
    let answered = AtomicUsize::new(0);
    let client = async |anew: bool| {
        let mut channel = secure.channel(None);
        let mut failures = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            if anew {
                channel = secure.channel(None);
            }
            match call(&channel, ANSWER).await {
                Ok(_) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                Err(status) => failures.push(status),
            }
        }
        failures
    };
    let failures = futures_util::future::join_all((0..8).map(|place| client(place % 2 == 0))).await;
    (answered.into_inner(), failures.concat())
}

#[tokio::test]
async fn fifty_rotations_under_load_fail_no_call_and_new_connections_see_the_newest_certificate() {
    let secure = Secure::start().await;
    let stop = AtomicBool::new(false);

    let rotating = async {
        for _ in 0..50 {
            let pair = secure.ca.server();
            secure.exchange(&pair);
            let seen = async {
                while secure.shown().await != pair.der {
                    sleep(LOOK).await;
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

// One thread runs the whole test, so that it hears what the server counts and logs.
#[tokio::test(flavor = "current_thread")]
async fn a_pair_that_does_not_match_is_counted_and_logged_once_and_the_one_before_stays_in_use() {
    let lines = Lines::default();
    let _kept = lines.keep("tidings_server=info");
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _here = metrics::set_default_local_recorder(&recorder);
    let secure = Secure::start().await;
    let before = secure.shown().await;
    let reloads = async |outcome: &str, count: u32| {
        let line = format!("tidings_server_tls_reloads_total{{outcome=\"{outcome}\"}} {count}\n");
        let counted = async {
            while !metrics.render().contains(&line) {
                sleep(LOOK).await;
            }
        };
        timeout(SOON, counted).await.unwrap();
    };

    let broken = Pair { key: secure.ca.server().key, ..secure.ca.server() };
    secure.exchange(&broken);
    reloads("failed", 1).await;
    secure.call(None).await.unwrap();
    assert!(secure.shown().await == before);
    sleep(5 * LOOK).await;
    let text = lines.text();
    let [line] = text.lines().filter(|line| line.contains("ERROR")).collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert!(line.contains("can not be used, the ones before stay in use"), "{line}");
    assert!(line.contains("tls.key: expected the key of the certificate, got another"), "{line}");

    secure.exchange(&secure.ca.server());
    reloads("ok", 1).await;
    reloads("failed", 1).await;
    assert!(secure.shown().await != before);
    assert!(
        metrics.render().contains("tidings_server_tls_certificate_expiry_timestamp_seconds "),
        "{}",
        metrics.render()
    );
}
