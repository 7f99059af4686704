//! Addresses of service instances.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::Uri;
use http::uri::{Authority, Scheme};

/// The address of one instance: `HOST:PORT` or `http://HOST:PORT`, or `https://HOST:PORT` for TLS.
///
/// Cheap to clone, because every error carries one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    uri: Arc<Uri>,
}

/// The addresses of all instances of a service, at least one: `HOST:PORT[,HOST:PORT...]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(Vec<Address>);

/// Error returned for a text that is not an address; holds the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}': expected HOST:PORT or https://HOST:PORT, e.g. 127.0.0.1:7401")]
pub struct InvalidAddress(String);

impl Address {
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Returns true if the instance is called over TLS.
    pub fn is_secure(&self) -> bool {
        self.uri.scheme() == Some(&Scheme::HTTPS)
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let malformed = || InvalidAddress(text.to_owned());
        let (scheme, authority) = match text.strip_prefix("https://") {
            Some(authority) => ("https", authority),
            None => ("http", text.strip_prefix("http://").unwrap_or(text)),
        };
        let authority = authority.trim_end_matches('/');
        let uri: Uri = format!("{scheme}://{authority}").parse().map_err(|_| malformed())?;
        let complete = uri.host().is_some_and(|host| !host.is_empty()) && uri.port_u16().is_some() && uri.path() == "/";
        if complete { Ok(Self { uri: Arc::new(uri) }) } else { Err(malformed()) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_secure() { "https://" } else { "" })?;
        f.write_str(self.uri.authority().map_or_else(Default::default, Authority::as_str))
    }
}

impl Addresses {
    /// Iterates over the addresses in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &Address> {
        self.0.iter()
    }
}

impl From<Address> for Addresses {
    fn from(address: Address) -> Self {
        Self(vec![address])
    }
}

impl FromStr for Addresses {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        text.split(',').map(|address| address.trim().parse()).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.0.iter().enumerate() {
            write!(f, "{}{address}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for text in ["127.0.0.1:7401", "http://127.0.0.1:7401", "http://127.0.0.1:7401/"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), "127.0.0.1:7401");
        }
        assert!("[::1]:7401".parse::<Address>().is_ok());
    }

    #[test]
    fn https_is_kept_in_the_displayed_address() {
        for text in ["https://localhost:7401", "https://localhost:7401/"] {
            let address: Address = text.parse().unwrap();
            assert!(address.is_secure());
            assert_eq!(address.to_string(), "https://localhost:7401");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "localhost",
            ":7401",
            "https://localhost",
            "ftp://localhost:1",
            "localhost:99999",
            "localhost:1/x",
            "a b:1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_service_has_one_address_or_several() {
        let addresses: Addresses = "one:7402, http://two:7402".parse().unwrap();

        assert_eq!(addresses.iter().count(), 2);
        assert_eq!(addresses.to_string(), "one:7402,two:7402");
    }

    #[test]
    fn one_malformed_address_rejects_the_list_and_is_named() {
        for (text, culprit) in [("", "''"), ("one:1,", "''"), ("one:1,two", "'two'")] {
            let error = text.parse::<Addresses>().unwrap_err().to_string();
            assert!(error.starts_with(culprit), "{error}");
        }
    }
}
