//! Client certificates are accepted only if they carry an allowed name.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::pki_types::{CertificateDer, DnsName, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, InvalidMessage, SignatureScheme,
};
use webpki::EndEntityCert;

/// A subject alternative name of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectAltName {
    /// A DNS name, e.g. `gateway.chat.internal`.
    Dns(String),
    /// A URI, e.g. `spiffe://chat/gateway`.
    Uri(String),
    /// An IP address, e.g. `10.1.2.3`.
    Ip(IpAddr),
}

impl SubjectAltName {
    /// Returns whether the certificate carries exactly this name. A wildcard in a certificate
    /// matches only itself: it was issued for a server.
    fn is_in(&self, certificate: &EndEntityCert<'_>) -> bool {
        match self {
            Self::Dns(name) => certificate.valid_dns_names().any(|dns| dns.eq_ignore_ascii_case(name)),
            Self::Uri(name) => certificate.valid_uri_names().any(|uri| uri == name),
            Self::Ip(ip) => certificate.verify_is_valid_for_subject_name(&ServerName::IpAddress((*ip).into())).is_ok(),
        }
    }
}

impl FromStr for SubjectAltName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected a DNS name, a URI like spiffe://chat/gateway, or an IP address";
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        match text.split_once("://") {
            Some((scheme, rest)) if !scheme.is_empty() && !rest.is_empty() && text.is_ascii() => {
                Ok(Self::Uri(text.to_owned()))
            }
            None if DnsName::try_from(text).is_ok() => Ok(Self::Dns(text.to_owned())),
            _ => Err(EXPECTED),
        }
    }
}

impl fmt::Display for SubjectAltName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) | Self::Uri(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// Accepts client certificates that `chain_verifier` accepts and that carry one of `names`.
#[derive(Debug)]
pub(super) struct SanVerifier {
    pub(super) chain_verifier: Arc<dyn ClientCertVerifier>,
    pub(super) names: Arc<[SubjectAltName]>,
}

impl ClientCertVerifier for SanVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain_verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain_verifier.verify_client_cert(end_entity, intermediates, now)?;
        let malformed = |_| Error::InvalidMessage(InvalidMessage::InvalidCertRequest);
        let certificate = EndEntityCert::try_from(end_entity).map_err(malformed)?;
        if self.names.iter().any(|name| name.is_in(&certificate)) {
            return Ok(verified);
        }
        // Only certificates of our CA get here, so strangers cannot flood the log.
        let carried: Vec<_> = certificate.valid_dns_names().chain(certificate.valid_uri_names()).collect();
        tracing::warn!(?carried, "client refused: its certificate carries no allowed name");
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain_verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain_verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain_verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn carries(sans: Vec<SanType>, name: &str) -> bool {
        let mut params = CertificateParams::default();
        params.subject_alt_names = sans;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        name.parse::<SubjectAltName>().unwrap().is_in(&EndEntityCert::try_from(certificate.der()).unwrap())
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    fn uri(name: &str) -> SanType {
        SanType::URI(name.try_into().unwrap())
    }

    #[test]
    fn a_name_matches_only_its_own_type_and_in_full() {
        assert!(carries(vec![dns("other"), dns("Gateway.chat")], "gateway.chat"));
        assert!(!carries(vec![dns("gateway.chat")], "chat"));
        assert!(!carries(vec![dns("*.chat")], "gateway.chat"), "a wildcard matches only itself");

        assert!(carries(vec![uri("spiffe://chat/gateway")], "spiffe://chat/gateway"));
        assert!(!carries(vec![uri("spiffe://chat/gateway/evil")], "spiffe://chat/gateway"));

        assert!(carries(vec![SanType::IpAddress("10.1.2.3".parse().unwrap())], "10.1.2.3"));
        assert!(!carries(vec![SanType::IpAddress("10.1.2.4".parse().unwrap())], "10.1.2.3"));
        assert!(!carries(vec![], "gateway.chat"));
    }

    #[test]
    fn an_invalid_name_is_an_error() {
        for text in ["", "a b", "://x", "spiffe://", "*.chat", "spiffe://grüße"] {
            assert!(text.parse::<SubjectAltName>().is_err(), "{text}");
        }
    }
}
