//! Builds the TLS configuration from PEM files.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};

use super::subject_alt_name::{SanVerifier, SubjectAltName};

/// ALPN protocol id of HTTP/2, which gRPC needs.
const HTTP2: &[u8] = b"h2";

/// A result whose error describes the expected content.
type Expected<T> = Result<T, String>;

/// Parses the certificates of a file, at least one.
pub(super) fn chain(pem: &[u8]) -> Expected<Vec<CertificateDer<'static>>> {
    let expected = "certificates in PEM, beginning with -----BEGIN CERTIFICATE-----".to_owned();
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(expected),
    }
}

/// Parses the CA certificates for clients.
pub(super) fn roots(pem: &[u8]) -> Expected<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in chain(pem)?.into_iter().enumerate() {
        roots
            .add(certificate)
            .map_err(|error| format!("CA certificates, but number {} is invalid: {error}", index + 1))?;
    }
    Ok(roots)
}

/// Builds the configuration of a server with this chain and the key in `pem`. With `roots`, clients
/// need a certificate signed by one of them; with `names`, it must also carry one of these names.
pub(super) fn config(
    chain: Vec<CertificateDer<'static>>,
    pem: &[u8],
    roots: Option<RootCertStore>,
    names: &Arc<[SubjectAltName]>,
) -> Expected<ServerConfig> {
    // The error of rustls does not help an operator to correct the file.
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
    names: &Arc<[SubjectAltName]>,
) -> Expected<Arc<dyn tokio_rustls::rustls::server::danger::ClientCertVerifier>> {
    let chain_verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let chain_verifier = chain_verifier.map_err(|error| error.to_string())?;
    if names.is_empty() {
        return Ok(chain_verifier);
    }
    Ok(Arc::new(SanVerifier { chain_verifier, names: Arc::clone(names) }))
}
