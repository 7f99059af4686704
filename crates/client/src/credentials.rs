//! What a client shows to the services, and whom it believes.

mod connector;
mod fresh;

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

use self::fresh::{Fresh, Malformed};
use crate::address::Addresses;

/// What gRPC speaks within TLS.
const HTTP2: &[u8] = b"h2";
/// Where calls have their token.
const AUTHORIZATION: &str = "authorization";

/// The files in which credentials are. All may change at any time: certificates are read again for each connection, the token
/// at most once a second.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Certificates in PEM of those who sign services. Needed for `https://` addresses, and of no use for others.
    pub ca: Option<PathBuf>,
    /// The certificate chain in PEM that is shown to services, with the key.
    pub cert: Option<PathBuf>,
    /// The private key of the certificate in PEM.
    pub key: Option<PathBuf>,
    /// One bearer token and nothing else, as `tidings token new` prints it.
    pub token: Option<PathBuf>,
}

/// What a client shows to services, and whom it believes. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    tls: Option<Arc<Fresh<Arc<ClientConfig>>>>,
    token: Option<Arc<Fresh<MetadataValue<Ascii>>>>,
}

/// Which of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// [`Files::ca`].
    Ca,
    /// [`Files::cert`].
    Cert,
    /// [`Files::key`].
    Key,
    /// [`Files::token`].
    Token,
}

/// Why credentials can not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Which of the files is to blame.
    pub part: Part,
    /// Its path, if there is one.
    pub path: Option<PathBuf>,
    /// What was expected of it.
    pub expected: String,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "'{}': {}", path.display(), self.expected),
            None => write!(f, "not given: {}", self.expected),
        }
    }
}

impl std::error::Error for Unusable {}

impl Credentials {
    /// Reads the files for calls to these addresses.
    ///
    /// # Errors
    /// A file that can not be used; certificates for addresses that are not called over TLS, or none for those that are.
    pub fn open(files: &Files, addresses: &Addresses) -> Result<Self, Unusable> {
        let missing = |part, expected: String| Unusable { part, path: None, expected };
        let identity = match (&files.cert, &files.key) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (Some(_), None) => return Err(missing(Part::Key, "expected the key of the certificate".to_owned())),
            (None, Some(_)) => return Err(missing(Part::Cert, "expected the certificate of the key".to_owned())),
            (None, None) => None,
        };
        let secure = addresses.iter().find(|address| address.is_secure());
        let plain = addresses.iter().find(|address| !address.is_secure());
        let tls = match (&files.ca, secure, plain) {
            (Some(ca), _, None) => Some(Arc::new(tls(ca, identity)?)),
            // What is meant to be secret must not be sent for everybody to read.
            (Some(ca), _, Some(plain)) => {
                let expected = format!("expected addresses that begin with https://, got {plain}");
                return Err(Unusable { part: Part::Ca, path: Some(ca.clone()), expected });
            }
            (None, Some(secure), _) => {
                return Err(missing(Part::Ca, format!("expected the certificates of those who signed {secure}")));
            }
            (None, None, _) if identity.is_some() => {
                return Err(missing(Part::Ca, "expected the certificates of those who signed the services".to_owned()));
            }
            (None, None, _) => None,
        };
        let token = files.token.as_deref().map(token).transpose()?.map(Arc::new);
        Ok(Self { tls, token })
    }

    /// A channel that is connected by its first call.
    pub(crate) fn channel(&self, endpoint: &transport::Endpoint) -> Channel {
        match &self.tls {
            Some(tls) => connector::lazy(endpoint, Arc::clone(tls)),
            // It would be called without TLS.
            None if endpoint.uri().scheme() == Some(&Scheme::HTTPS) => connector::never(endpoint),
            None => endpoint.connect_lazy(),
        }
    }

    /// Puts the token into a request, if there is one and the request has none.
    pub(crate) fn authorize<T>(&self, request: &mut Request<T>) {
        if let Some(token) = &self.token
            && !request.metadata().contains_key(AUTHORIZATION)
        {
            request.metadata_mut().insert(AUTHORIZATION, token.get());
        }
    }
}

/// How connections are made, with whatever the files hold then.
fn tls(ca: &Path, identity: Option<(PathBuf, PathBuf)>) -> Result<Fresh<Arc<ClientConfig>>, Unusable> {
    let parts = [Part::Ca, Part::Cert, Part::Key];
    let paths: Vec<_> =
        [ca.to_owned()].into_iter().chain(identity.into_iter().flat_map(|(cert, key)| [cert, key])).collect();
    Fresh::open("certificates", paths, |contents| config(contents).map(Arc::new))
        .map_err(|(place, path, expected)| Unusable { part: parts[place], path: Some(path), expected })
}

fn config(contents: &[Vec<u8>]) -> Result<ClientConfig, Malformed> {
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
                .map_err(|error| (2, format!("expected the key of the certificate: {error}")))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols.push(HTTP2.to_vec());
    Ok(config)
}

/// The certificates of the file at `place`, at least one.
fn chain(place: usize, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Malformed> {
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err((place, "expected certificates in PEM, beginning with -----BEGIN CERTIFICATE-----".to_owned())),
    }
}

fn token(path: &Path) -> Result<Fresh<MetadataValue<Ascii>>, Unusable> {
    Fresh::open("token", vec![path.to_owned()], |contents| bearer(&contents[0]))
        .map_err(|(_, path, expected)| Unusable { part: Part::Token, path: Some(path), expected })
}

/// What a call shows of the token in a file.
fn bearer(content: &[u8]) -> Result<MetadataValue<Ascii>, Malformed> {
    let malformed = || (0, "expected one token and nothing else, as `tidings token new` prints it".to_owned());
    let token = content.trim_ascii();
    // A list of tokens, as servers have it, would be understood as a token else.
    if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
        return Err(malformed());
    }
    let value = [b"Bearer ", token].concat();
    let mut value = MetadataValue::try_from(value.as_slice()).map_err(|_| malformed())?;
    value.set_sensitive(true); // neither printed nor kept in the tables of HTTP/2
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use tempfile::TempDir;

    use super::*;

    /// A pair, which is its own CA, and a token.
    fn files() -> (TempDir, Files) {
        let dir = TempDir::new().unwrap();
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            Some(path)
        };
        let files = Files {
            ca: write("ca.pem", &cert.pem()),
            cert: write("cert.pem", &cert.pem()),
            key: write("key.pem", &signing_key.serialize_pem()),
            token: write("token", "tidings_1\n"),
        };
        (dir, files)
    }

    fn open(files: &Files, addresses: &str) -> Result<Credentials, Unusable> {
        Credentials::open(files, &addresses.parse().unwrap())
    }

    #[test]
    fn a_file_that_can_not_be_used_is_named() {
        let (_dir, good) = files();
        let told = |files: Files| {
            let error = open(&files, "https://a:1").unwrap_err();
            (error.part, error.expected)
        };

        assert!(open(&good, "https://a:1,https://b:1").is_ok());
        let (part, expected) = told(Files { ca: good.key.clone(), ..good.clone() });
        assert!(part == Part::Ca && expected.starts_with("expected certificates in PEM"), "{expected}");
        let (part, expected) = told(Files { key: good.cert.clone(), ..good.clone() });
        assert!(part == Part::Key && expected.starts_with("expected a private key in PEM"), "{expected}");
        let (part, expected) = told(Files { cert: Some("/nowhere".into()), ..good.clone() });
        assert!(part == Part::Cert && expected.contains("No such file"), "{expected}");
        let (part, expected) = told(Files { token: good.ca.clone(), ..good.clone() });
        assert!(part == Part::Token && expected.starts_with("expected one token and nothing else"), "{expected}");
        assert_eq!(told(Files { key: None, ..good.clone() }).0, Part::Key);
        assert_eq!(told(Files { cert: None, ..good }).0, Part::Cert);
    }

    #[test]
    fn certificates_and_https_belong_together() {
        let (_dir, good) = files();
        let token = Files { token: good.token.clone(), ..Files::default() };

        let error = open(&good, "https://a:1,b:1").unwrap_err();
        assert_eq!(
            (error.part, error.expected.as_str()),
            (Part::Ca, "expected addresses that begin with https://, got b:1")
        );
        let error = open(&token, "https://a:1").unwrap_err().to_string();
        assert_eq!(error, "not given: expected the certificates of those who signed https://a:1");
        assert!(open(&token, "a:1").is_ok());
    }

    #[test]
    fn a_token_is_shown_to_services_and_to_nobody_else() {
        let (_dir, files) = files();
        let credentials = open(&Files { token: files.token, ..Files::default() }, "a:1").unwrap();
        let mut request = Request::new(());

        credentials.authorize(&mut request);

        assert_eq!(request.metadata().get(AUTHORIZATION).unwrap(), "Bearer tidings_1");
        assert!(!format!("{credentials:?} {request:?}").contains("tidings_1"), "{credentials:?} {request:?}");
    }

    #[test]
    fn a_token_that_the_caller_chose_stays() {
        let (_dir, files) = files();
        let credentials = open(&Files { token: files.token, ..Files::default() }, "a:1").unwrap();
        let mut request = Request::new(());
        request.metadata_mut().insert(AUTHORIZATION, "Bearer other".parse().unwrap());

        credentials.authorize(&mut request);

        assert_eq!(request.metadata().get(AUTHORIZATION).unwrap(), "Bearer other");
    }
}
