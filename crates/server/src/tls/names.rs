//! Which clients are let in: those whose certificate carries a name that is allowed.

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

/// A subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A host, e.g. `gateway.chat.internal`.
    Dns(String),
    /// Anything with a scheme, e.g. `spiffe://chat/gateway`.
    Uri(String),
    /// An address, e.g. `10.1.2.3`.
    Ip(IpAddr),
}

impl Name {
    /// Whether the certificate carries exactly this name. A wildcard in a certificate stands for nothing but itself: it
    /// was made for a server.
    fn is_in(&self, certificate: &EndEntityCert<'_>) -> bool {
        match self {
            Self::Dns(name) => certificate.valid_dns_names().any(|dns| dns.eq_ignore_ascii_case(name)),
            Self::Uri(name) => certificate.valid_uri_names().any(|uri| uri == name),
            Self::Ip(ip) => certificate.verify_is_valid_for_subject_name(&ServerName::IpAddress((*ip).into())).is_ok(),
        }
    }
}

impl FromStr for Name {
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

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) | Self::Uri(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// Lets in whom `signed` lets in and whose certificate carries one of `names`.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) signed: Arc<dyn ClientCertVerifier>,
    pub(super) names: Arc<[Name]>,
}

impl ClientCertVerifier for Named {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.signed.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.signed.verify_client_cert(end_entity, intermediates, now)?;
        let malformed = |_| Error::InvalidMessage(InvalidMessage::InvalidCertRequest);
        let certificate = EndEntityCert::try_from(end_entity).map_err(malformed)?;
        if self.names.iter().any(|name| name.is_in(&certificate)) {
            return Ok(verified);
        }
        // Only somebody whom our CA has signed gets here, so nobody else can fill the log.
        let carried: Vec<_> = certificate.valid_dns_names().chain(certificate.valid_uri_names()).collect();
        tracing::warn!(?carried, "a client's certificate carries no allowed name, refused");
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
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
        name.parse::<Name>().unwrap().is_in(&EndEntityCert::try_from(certificate.der()).unwrap())
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    fn uri(name: &str) -> SanType {
        SanType::URI(name.try_into().unwrap())
    }

    #[test]
    fn a_name_is_carried_as_what_it_is_and_in_whole() {
        assert!(carries(vec![dns("other"), dns("Gateway.chat")], "gateway.chat"));
        assert!(!carries(vec![dns("gateway.chat")], "chat"));
        assert!(!carries(vec![dns("*.chat")], "gateway.chat"), "a wildcard stands for itself");

        assert!(carries(vec![uri("spiffe://chat/gateway")], "spiffe://chat/gateway"));
        assert!(!carries(vec![uri("spiffe://chat/gateway/evil")], "spiffe://chat/gateway"));

        assert!(carries(vec![SanType::IpAddress("10.1.2.3".parse().unwrap())], "10.1.2.3"));
        assert!(!carries(vec![SanType::IpAddress("10.1.2.4".parse().unwrap())], "10.1.2.3"));
        assert!(!carries(vec![], "gateway.chat"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "a b", "://x", "spiffe://", "*.chat", "spiffe://grüße"] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }
}
