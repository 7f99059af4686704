//! TLS of accepted connections: certificates that are reloaded, and client certificates.

mod expiry;
mod pem;
mod subject_alt_name;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

pub use self::subject_alt_name::SubjectAltName;
use crate::reloadable::{MalformedFile, Reloadable, ReloadableContent};
use crate::setting::{InvalidSetting, SettingName, duration};

const CERT: SettingName = SettingName { flag: "--tls-cert", variable: "TIDINGS_TLS_CERT" };
const KEY: SettingName = SettingName { flag: "--tls-key", variable: "TIDINGS_TLS_KEY" };
const CLIENT_CA: SettingName = SettingName { flag: "--tls-client-ca", variable: "TIDINGS_TLS_CLIENT_CA" };

/// Settings of TLS.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Certificate chain of this server in PEM, its own certificate first; with it only TLS is
    /// accepted. Reloaded when it changes.
    #[arg(long, env = "TIDINGS_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of the certificate in PEM. Reloaded when it changes.
    #[arg(long, env = "TIDINGS_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// CA certificates in PEM for client certificates; with it every client needs a certificate
    /// signed by one of them. Reloaded when it changes.
    #[arg(long, env = "TIDINGS_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,

    /// Allowed names of clients: DNS names, URIs or IP addresses, separated by commas or given one
    /// by one, e.g. `spiffe://chat/gateway`. A client's certificate must carry one of them. Without
    /// it every client certificate of the CA is accepted.
    #[arg(long, env = "TIDINGS_TLS_CLIENT_SAN", value_name = "NAME", value_delimiter = ',')]
    pub tls_client_san: Vec<SubjectAltName>,

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

/// Accepts TLS connections with the current certificates. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    reloadable: Arc<Reloadable<Certificates>>,
    handshake_timeout: Duration,
}

/// The parsed files, as a handshake needs them.
struct Certificates {
    config: Arc<ServerConfig>,
    /// Expiry of the server certificate, in seconds of Unix time.
    expires: Option<i64>,
}

impl ReloadableContent for Certificates {
    const NAME: &'static str = "certificates";
    const RELOADS_METRIC: &'static str = "tidings_server_tls_reloads_total";

    #[expect(clippy::cast_precision_loss, reason = "exact for the next 285 million years")]
    fn on_activate(&self) {
        if let Some(expires) = self.expires {
            metrics::gauge!("tidings_server_tls_certificate_expiry_timestamp_seconds").set(expires as f64);
        }
    }
}

impl Tls {
    /// Reads the certificates; `None` if TLS is not configured.
    ///
    /// # Errors
    /// The invalid setting.
    pub(crate) fn open(args: &Args) -> Result<Option<Self>, InvalidSetting> {
        let (Some(cert), Some(key)) = (&args.tls_cert, &args.tls_key) else {
            return args.missing_setting().map_or(Ok(None), Err);
        };
        if args.tls_client_ca.is_none() && !args.tls_client_san.is_empty() {
            return Err(CLIENT_CA.missing("a file, as --tls-client-san is given"));
        }
        let flags = [CERT, KEY, CLIENT_CA];
        let paths = [Some(cert), Some(key), args.tls_client_ca.as_ref()];
        let names: Arc<[SubjectAltName]> = args.tls_client_san.clone().into();
        let reader = move |contents: &[Vec<u8>]| -> Result<Certificates, MalformedFile> {
            let chain = pem::chain(&contents[0]).map_err(|expected| (0, expected))?;
            let expires = chain.first().and_then(|certificate| expiry::of(certificate));
            let roots = contents.get(2).map(|pem| pem::roots(pem)).transpose().map_err(|expected| (2, expected))?;
            let config = pem::config(chain, &contents[1], roots, &names).map_err(|expected| (1, expected))?;
            Ok(Certificates { config: Arc::new(config), expires })
        };
        let reloadable = Reloadable::open(paths.into_iter().flatten().cloned().collect(), reader)
            .map_err(|unusable| flags[unusable.index].unusable(&unusable))?;
        Ok(Some(Self { reloadable: Arc::new(reloadable), handshake_timeout: args.tls_timeout.into() }))
    }

    /// Performs a TLS handshake with the current certificates.
    ///
    /// # Errors
    /// The client was refused, or the handshake timed out.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.reloadable.current().config));
        timeout(self.handshake_timeout, acceptor.accept(stream)).await?
    }

    /// Polls the files at this interval and reloads them when they have changed; runs until
    /// dropped.
    pub(crate) async fn watch(self, poll_interval: Duration) {
        self.reloadable.watch(poll_interval).await;
    }
}

impl Args {
    /// Returns the error that names the missing setting, when certificate and key are not both
    /// given.
    fn missing_setting(&self) -> Option<InvalidSetting> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => Some(KEY.missing("a file, as --tls-cert is given")),
            (None, Some(_)) => Some(CERT.missing("a file, as --tls-key is given")),
            _ if self.tls_client_ca.is_some() => Some(CERT.missing("a file, as --tls-client-ca is given")),
            _ if !self.tls_client_san.is_empty() => Some(CERT.missing("a file, as --tls-client-san is given")),
            _ => None,
        }
    }
}
