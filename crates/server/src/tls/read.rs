//! From files in PEM to what a handshake needs.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};

use super::names::{Name, Named};

/// What gRPC speaks within TLS.
const HTTP2: &[u8] = b"h2";

/// Each of these says what was expected instead.
type Expected<T> = Result<T, String>;

/// The certificates of a file, at least one.
pub(super) fn chain(pem: &[u8]) -> Expected<Vec<CertificateDer<'static>>> {
    let expected = "certificates in PEM, beginning with -----BEGIN CERTIFICATE-----".to_owned();
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(expected),
    }
}

/// Those who may sign clients.
pub(super) fn roots(pem: &[u8]) -> Expected<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for (place, certificate) in chain(pem)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| format!("CA certificates, but of number {}: {error}", place + 1))?;
    }
    Ok(roots)
}

/// A server with this chain and the key in `pem`, for clients that `roots` have signed and that carry one of `names`; for
/// everybody if there are no roots, for every name if there are no names.
pub(super) fn config(
    chain: Vec<CertificateDer<'static>>,
    pem: &[u8],
    roots: Option<RootCertStore>,
    names: &Arc<[Name]>,
) -> Expected<ServerConfig> {
    // What rustls says of a file that holds something else is of no use to whoever has to mend it.
    let key = PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| "a private key in PEM, beginning with -----BEGIN PRIVATE KEY-----")?;
    let provider = Arc::new(ring::default_provider());
    let versions = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| error.to_string())?;
    let builder = match roots {
        None => builder.with_no_client_auth(),
        Some(roots) => builder.with_client_cert_verifier(verifier(roots, provider, names)?),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => "the key of the certificate, got another".to_owned(),
        error => format!("the key of a certificate that can be used, got: {error}"),
    })?;
    config.alpn_protocols.push(HTTP2.to_vec());
    Ok(config)
}

fn verifier(
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
    names: &Arc<[Name]>,
) -> Expected<Arc<dyn tokio_rustls::rustls::server::danger::ClientCertVerifier>> {
    let signed = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let signed = signed.map_err(|error| error.to_string())?;
    if names.is_empty() {
        return Ok(signed);
    }
    Ok(Arc::new(Named { signed, names: Arc::clone(names) }))
}
