//! TLS for what is accepted: certificates that may change at any moment, clients that must show theirs.

mod expiry;
mod names;
mod read;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

pub use self::names::Name;
use crate::duration;
use crate::live::{Content, Live, Malformed};
use crate::security::{Setting, Wrong};

const CERT: Setting = Setting { flag: "--tls-cert", variable: "TIDINGS_TLS_CERT" };
const KEY: Setting = Setting { flag: "--tls-key", variable: "TIDINGS_TLS_KEY" };
const CLIENT_CA: Setting = Setting { flag: "--tls-client-ca", variable: "TIDINGS_TLS_CLIENT_CA" };

/// Whom the server shows its certificate, and whose it wants to see.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Certificate chain of this server in PEM, its own first; with it only TLS is spoken. Read again when it changes.
    #[arg(long, env = "TIDINGS_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of the certificate in PEM. Read again when it changes.
    #[arg(long, env = "TIDINGS_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Certificates in PEM of those who sign clients; with it only clients with such a certificate are served. Read again
    /// when it changes.
    #[arg(long, env = "TIDINGS_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,

    /// Names of which a client's certificate must carry one: DNS names, URIs or IP addresses, several separated by commas
    /// or given one by one, e.g. `spiffe://chat/gateway`. Without it every client that the CA has signed is served.
    #[arg(long, env = "TIDINGS_TLS_CLIENT_SAN", value_name = "NAME", value_delimiter = ',')]
    pub tls_client_san: Vec<Name>,

    /// Longest time a TLS handshake may take before the connection is closed, e.g. `5s`.
    #[arg(long, env = "TIDINGS_TLS_TIMEOUT", default_value_t = Args::default().tls_timeout, value_name = "DURATION",
          value_parser = duration)]
    pub tls_timeout: humantime::Duration,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            tls_client_san: Vec::new(),
            tls_timeout: Duration::from_secs(5).into(),
        }
    }
}

/// Accepts TLS with the certificates as they are now. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    live: Arc<Live<Certificates>>,
    limit: Duration,
}

/// Everything that a handshake needs.
struct Certificates {
    config: Arc<ServerConfig>,
    /// In seconds of Unix time.
    expires: Option<i64>,
}

impl Content for Certificates {
    const WHAT: &'static str = "certificates";
    const RELOADS: &'static str = "tidings_server_tls_reloads_total";

    #[expect(clippy::cast_precision_loss, reason = "exact for the next 285 million years")]
    fn in_use(&self) {
        if let Some(expires) = self.expires {
            metrics::gauge!("tidings_server_tls_certificate_expiry_timestamp_seconds").set(expires as f64);
        }
    }
}

impl Tls {
    /// Reads the certificates; `None` if TLS is not asked for.
    ///
    /// # Errors
    /// The setting that is wrong.
    pub(crate) fn open(args: &Args) -> Result<Option<Self>, Wrong> {
        let (Some(cert), Some(key)) = (&args.tls_cert, &args.tls_key) else {
            return args.lacking().map_or(Ok(None), Err);
        };
        if args.tls_client_ca.is_none() && !args.tls_client_san.is_empty() {
            return Err(CLIENT_CA.missing("a file, as --tls-client-san is given"));
        }
        let flags = [CERT, KEY, CLIENT_CA];
        let paths = [Some(cert), Some(key), args.tls_client_ca.as_ref()];
        let names: Arc<[Name]> = args.tls_client_san.clone().into();
        let reader = move |contents: &[Vec<u8>]| -> Result<Certificates, Malformed> {
            let chain = read::chain(&contents[0]).map_err(|expected| (0, expected))?;
            let expires = chain.first().and_then(|certificate| expiry::of(certificate));
            let roots = contents.get(2).map(|pem| read::roots(pem)).transpose().map_err(|expected| (2, expected))?;
            let config = read::config(chain, &contents[1], roots, &names).map_err(|expected| (1, expected))?;
            Ok(Certificates { config: Arc::new(config), expires })
        };
        let live = Live::open(paths.into_iter().flatten().cloned().collect(), reader)
            .map_err(|unusable| flags[unusable.place].wrong(&unusable))?;
        Ok(Some(Self { live: Arc::new(live), limit: args.tls_timeout.into() }))
    }

    /// Makes a connection secure, with the newest certificates.
    ///
    /// # Errors
    /// The client is not let in, or took too long.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.live.now().config));
        timeout(self.limit, acceptor.accept(stream)).await?
    }

    /// Looks at the files so often, and takes over what they hold when that has changed, for as long as it is polled.
    pub(crate) async fn watch(self, look: Duration) {
        self.live.watch(look).await;
    }
}

impl Args {
    /// What is missing to what is given, when certificate and key are not both given.
    fn lacking(&self) -> Option<Wrong> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => Some(KEY.missing("a file, as --tls-cert is given")),
            (None, Some(_)) => Some(CERT.missing("a file, as --tls-key is given")),
            _ if self.tls_client_ca.is_some() => Some(CERT.missing("a file, as --tls-client-ca is given")),
            _ if !self.tls_client_san.is_empty() => Some(CERT.missing("a file, as --tls-client-san is given")),
            _ => None,
        }
    }
}
