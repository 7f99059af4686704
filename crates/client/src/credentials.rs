//! TLS certificates and bearer tokens of a client, reloaded from files.

mod connector;
mod reloaded;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::uri::Scheme;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, transport};

use self::reloaded::{FileError, Reloaded};
use crate::address::Addresses;

/// ALPN protocol of gRPC.
const HTTP2: &[u8] = b"h2";
/// Metadata key of the bearer token.
const AUTHORIZATION: &str = "authorization";

/// Paths of the files that hold the credentials.
///
/// The files may change at any time. Certificates are reloaded for new connections and the token
/// for calls, each at most once a second.
#[derive(Clone, Debug, Default)]
pub struct CredentialFiles {
    /// CA certificates in PEM that verify the services. Required for `https://` addresses, and an
    /// error with any other.
    pub ca: Option<PathBuf>,
    /// Client certificate chain in PEM. Requires `key`.
    pub cert: Option<PathBuf>,
    /// Private key of the certificate in PEM.
    pub key: Option<PathBuf>,
    /// File with one bearer token and nothing else, as `tidings token new` prints it.
    pub token: Option<PathBuf>,
}

/// TLS configuration and bearer token of a client. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    tls: Option<Arc<Reloaded<Arc<ClientConfig>>>>,
    token: Option<Arc<Reloaded<MetadataValue<Ascii>>>>,
}

/// Kind of a credential file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    /// The CA certificates, [`CredentialFiles::ca`].
    Ca,
    /// The client certificate, [`CredentialFiles::cert`].
    Cert,
    /// The private key, [`CredentialFiles::key`].
    Key,
    /// The bearer token, [`CredentialFiles::token`].
    Token,
}

/// Error returned for credentials that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidCredentials {
    /// Kind of the file that is wrong or absent.
    pub kind: CredentialKind,
    /// Path of the file; `None` if no file was given.
    pub path: Option<PathBuf>,
    /// Expected contents, e.g. `expected CA certificates: ...`.
    pub expected: String,
}

impl fmt::Display for InvalidCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "'{}': {}", path.display(), self.expected),
            None => write!(f, "not given: {}", self.expected),
        }
    }
}

impl std::error::Error for InvalidCredentials {}

impl Credentials {
    /// Reads the files for calls to `addresses`.
    ///
    /// # Errors
    /// A file is invalid. A CA is given, but an address is not `https://`. No CA is given, but an
    /// address is `https://` or there is a client certificate. A certificate is given without its
    /// key, or a key without its certificate.
    pub fn open(files: &CredentialFiles, addresses: &Addresses) -> Result<Self, InvalidCredentials> {
        let missing = |kind, expected: String| InvalidCredentials { kind, path: None, expected };
        let identity = match (&files.cert, &files.key) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (Some(_), None) => {
                return Err(missing(CredentialKind::Key, "expected the private key of the certificate".to_owned()));
            }
            (None, Some(_)) => {
                return Err(missing(CredentialKind::Cert, "expected the certificate of the key".to_owned()));
            }
            (None, None) => None,
        };
        let secure = addresses.iter().find(|address| address.is_secure());
        let plain = addresses.iter().find(|address| !address.is_secure());
        let tls = match (&files.ca, secure, plain) {
            (Some(ca), _, None) => Some(Arc::new(tls(ca, identity)?)),
            // A client with TLS credentials must not send anything in plain text.
            (Some(ca), _, Some(plain)) => {
                let expected = format!("expected addresses that begin with https://, got {plain}");
                return Err(InvalidCredentials { kind: CredentialKind::Ca, path: Some(ca.clone()), expected });
            }
            (None, Some(secure), _) => {
                return Err(missing(CredentialKind::Ca, format!("expected a CA file to verify {secure}")));
            }
            (None, None, _) if identity.is_some() => {
                return Err(missing(CredentialKind::Ca, "expected a CA file to verify the services".to_owned()));
            }
            (None, None, _) => None,
        };
        let token = files.token.as_deref().map(token).transpose()?.map(Arc::new);
        Ok(Self { tls, token })
    }

    /// Returns a channel that connects on its first call.
    pub(crate) fn channel(&self, endpoint: &transport::Endpoint) -> Channel {
        match &self.tls {
            Some(tls) => connector::lazy(endpoint, Arc::clone(tls)),
            // Without a TLS configuration, tonic would call the address in plain text.
            None if endpoint.uri().scheme() == Some(&Scheme::HTTPS) => connector::unusable(endpoint),
            None => endpoint.connect_lazy(),
        }
    }

    /// Adds the bearer token to a request that has none.
    pub(crate) fn authorize<T>(&self, request: &mut Request<T>) {
        if let Some(token) = &self.token
            && !request.metadata().contains_key(AUTHORIZATION)
        {
            request.metadata_mut().insert(AUTHORIZATION, token.get());
        }
    }
}

/// Returns the TLS configuration, which is reloaded from its files.
fn tls(ca: &Path, identity: Option<(PathBuf, PathBuf)>) -> Result<Reloaded<Arc<ClientConfig>>, InvalidCredentials> {
    let kinds = [CredentialKind::Ca, CredentialKind::Cert, CredentialKind::Key];
    let paths: Vec<_> =
        [ca.to_owned()].into_iter().chain(identity.into_iter().flat_map(|(cert, key)| [cert, key])).collect();
    Reloaded::open("certificates", paths, |contents| config(contents).map(Arc::new))
        .map_err(|(index, path, expected)| InvalidCredentials { kind: kinds[index], path: Some(path), expected })
}

fn config(contents: &[Vec<u8>]) -> Result<ClientConfig, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(0, &contents[0])? {
        roots.add(certificate).map_err(|error| (0, format!("expected CA certificates: {error}")))?;
    }
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| (0, error.to_string()))?
        .with_root_certificates(roots);
    let mut config = match contents {
        [_, cert, key] => {
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
                (2, "expected a private key in PEM, beginning with -----BEGIN PRIVATE KEY-----".to_owned())
            })?;
            builder
                .with_client_auth_cert(chain(1, cert)?, key)
                .map_err(|error| (2, format!("expected the private key of the certificate: {error}")))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols.push(HTTP2.to_vec());
    Ok(config)
}

/// Parses the certificates of the file at `index`; at least one is required.
fn chain(index: usize, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, FileError> {
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err((index, "expected certificates in PEM, beginning with -----BEGIN CERTIFICATE-----".to_owned())),
    }
}

fn token(path: &Path) -> Result<Reloaded<MetadataValue<Ascii>>, InvalidCredentials> {
    Reloaded::open("token", vec![path.to_owned()], |contents| bearer(&contents[0]))
        .map_err(|(_, path, expected)| InvalidCredentials { kind: CredentialKind::Token, path: Some(path), expected })
}

/// Returns the `authorization` value for the token in a file.
fn bearer(content: &[u8]) -> Result<MetadataValue<Ascii>, FileError> {
    let malformed = || (0, "expected one token and nothing else, as `tidings token new` prints it".to_owned());
    let token = content.trim_ascii();
    // The token list of a server has spaces and several lines.
    if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
        return Err(malformed());
    }
    let value = [b"Bearer ", token].concat();
    let mut value = MetadataValue::try_from(value.as_slice()).map_err(|_| malformed())?;
    value.set_sensitive(true); // kept out of debug output and of HPACK tables
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use tempfile::TempDir;

    use super::*;

    /// Writes a self-signed certificate, which is also the CA, its key and a token.
    fn files() -> (TempDir, CredentialFiles) {
        let dir = TempDir::new().unwrap();
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            Some(path)
        };
        let files = CredentialFiles {
            ca: write("ca.pem", &cert.pem()),
            cert: write("cert.pem", &cert.pem()),
            key: write("key.pem", &signing_key.serialize_pem()),
            token: write("token", "tidings_1\n"),
        };
        (dir, files)
    }

    fn open(files: &CredentialFiles, addresses: &str) -> Result<Credentials, InvalidCredentials> {
        Credentials::open(files, &addresses.parse().unwrap())
    }

    #[test]
    fn an_invalid_file_is_named() {
        let (_dir, good) = files();
        let problem = |files: CredentialFiles| {
            let error = open(&files, "https://a:1").unwrap_err();
            (error.kind, error.expected)
        };

        assert!(open(&good, "https://a:1,https://b:1").is_ok());
        let (kind, expected) = problem(CredentialFiles { ca: good.key.clone(), ..good.clone() });
        assert!(kind == CredentialKind::Ca && expected.starts_with("expected certificates in PEM"), "{expected}");
        let (kind, expected) = problem(CredentialFiles { key: good.cert.clone(), ..good.clone() });
        assert!(kind == CredentialKind::Key && expected.starts_with("expected a private key in PEM"), "{expected}");
        let (kind, expected) = problem(CredentialFiles { cert: Some("/nowhere".into()), ..good.clone() });
        assert!(kind == CredentialKind::Cert && expected.contains("No such file"), "{expected}");
        let (kind, expected) = problem(CredentialFiles { token: good.ca.clone(), ..good.clone() });
        assert!(
            kind == CredentialKind::Token && expected.starts_with("expected one token and nothing else"),
            "{expected}"
        );
        assert_eq!(problem(CredentialFiles { key: None, ..good.clone() }).0, CredentialKind::Key);
        assert_eq!(problem(CredentialFiles { cert: None, ..good }).0, CredentialKind::Cert);
    }

    #[test]
    fn a_ca_and_https_require_each_other() {
        let (_dir, good) = files();
        let token = CredentialFiles { token: good.token.clone(), ..CredentialFiles::default() };

        let error = open(&good, "https://a:1,b:1").unwrap_err();
        assert_eq!(
            (error.kind, error.expected.as_str()),
            (CredentialKind::Ca, "expected addresses that begin with https://, got b:1")
        );
        let error = open(&token, "https://a:1").unwrap_err().to_string();
        assert_eq!(error, "not given: expected a CA file to verify https://a:1");
        assert!(open(&token, "a:1").is_ok());
    }

    #[test]
    fn a_token_is_sent_but_never_printed() {
        let (_dir, files) = files();
        let credentials = open(&CredentialFiles { token: files.token, ..CredentialFiles::default() }, "a:1").unwrap();
        let mut request = Request::new(());

        credentials.authorize(&mut request);

        assert_eq!(request.metadata().get(AUTHORIZATION).unwrap(), "Bearer tidings_1");
        assert!(!format!("{credentials:?} {request:?}").contains("tidings_1"), "{credentials:?} {request:?}");
    }

    #[test]
    fn a_token_set_by_the_caller_is_kept() {
        let (_dir, files) = files();
        let credentials = open(&CredentialFiles { token: files.token, ..CredentialFiles::default() }, "a:1").unwrap();
        let mut request = Request::new(());
        request.metadata_mut().insert(AUTHORIZATION, "Bearer other".parse().unwrap());

        credentials.authorize(&mut request);

        assert_eq!(request.metadata().get(AUTHORIZATION).unwrap(), "Bearer other");
    }
}
